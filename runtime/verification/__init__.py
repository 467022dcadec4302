"""Checks that a variant still gives the results of the export, without torch.

Reading order:

1. `tolerance`: how far results may differ.
2. `golden`: golden vectors, which the bundle keeps from the export.
3. `golden_spans`: the spans of a tagger beside those of its golden vectors.
"""
