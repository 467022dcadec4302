"""Checks that a variant still gives the results of the export, without torch.

Reading order:

1. `tolerance`: how far results may differ.
2. `golden_vectors`: sample texts with their results, which the bundle keeps from the export.
3. `golden_spans`: the spans of a tagger beside those of its golden vectors.
4. `masked_rows`: logits of words in the form of the golden vectors. `golden`: checks variants against these.
5. `space`: the space of a bundle's embeddings, and its id.
6. `compat`: whether the vectors of two bundles may live in one index.
"""
