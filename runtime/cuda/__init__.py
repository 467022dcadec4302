"""Packed graphs on GPUs.

In reading order: `packing` removes the padding, `workers` runs each GPU from a thread of its own, `pinned_memory` holds
inputs and outputs on the host, `cuda_graphs` captures small runs.
"""
