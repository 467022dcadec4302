"""The source of an export: one checkpoint, or several with the same encoder, loaded as eager PyTorch.

In reading order:
1. `embedding_settings`: pooling and normalization from sentence-transformers files.
2. `dual_encoder`: PyTorch module of a checkpoint with two encoders.
3. `loading`: a checkpoint's folder, configuration, module and tokenizer.
4. `checkpoint`: one checkpoint, made of these parts.
5. `export_source`: all checkpoints of a bundle, with heads, limits and description.
"""
