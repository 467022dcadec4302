"""Checks and timings that need an NVIDIA GPU, as one command.

In reading order: `race` is the command, which times encort and PyTorch. `checks` compares one bundle with eager
PyTorch, `kinds` does so for a small model of every kind, `torch_on_gpu` runs BERT in PyTorch, `token_batches` makes the
workload.
"""
