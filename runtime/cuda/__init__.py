"""Run packed graphs on NVIDIA GPUs.

In reading order: `workers` gives each GPU a session and a thread, `packing` removes the padding before a run and puts
it back after, `pinned_memory` holds the inputs and outputs of a run on the host, `cuda_graphs` captures small runs.
"""
