"""Proof that a variant is the model that was trained.

In reading order: `samples` are real texts, `oracle` is eager PyTorch, `cpu_attention` runs packed graphs without a GPU,
`verify` compares.
"""
