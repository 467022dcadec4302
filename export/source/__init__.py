"""The source of an export: one checkpoint, or several with the same encoder, loaded as eager PyTorch.

In reading order:
1. `embedding`: settings of sentence embeddings from sentence-transformers files.
2. `loaded_weights`: check that a module has exactly the weights of its folder.
3. `cross_encoder`: activation function of a cross-encoder.
4. `dual_encoder`: PyTorch module of a checkpoint with two encoders.
5. `adapters` and `loading`: a checkpoint's configuration and module, with an adapter merged into it.
6. `checkpoint`: one checkpoint, made of these parts.
7. `tokenizer_files`: the tokenizer files of a bundle.
8. `model_card`: licence and origin of a checkpoint.
9. `export_source`: all checkpoints of a bundle, with heads, limits and description.
"""
