"""What is exported: checkpoints as eager PyTorch loads them.

In reading order: `embedding_settings` and `dual_encoder`, `checkpoint`, and `export_source`: everything for one bundle.
"""
