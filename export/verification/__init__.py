"""Verification that a variant gives the results of its checkpoint.

In reading order:
1. `samples`: real texts.
2. `oracle`: eager PyTorch, which gives the expected outputs.
3. `cpu_attention`: runs packed graphs without a GPU.
4. `verify`: compares a variant's outputs with the expected ones.
5. `against_checkpoint`: does all of this for a bundle and its checkpoints.
"""
