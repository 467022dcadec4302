"""Checkpoint to verified bundle.

In reading order:
`checkpoint` and `embedding_settings` (what was trained, in eager PyTorch) → `description` and `architectures` (the
same weights, named neutrally) → `graph`, `encoder`, `heads` (the ONNX graph, authored from them) →
`oracle`, `samples`, `verify` (is it the same model?) → `exporter` (the whole walk, one call).
"""
