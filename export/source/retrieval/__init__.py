"""Token vectors and sparse embeddings of a checkpoint, in the forms in which they are published.

In reading order:
1. `settings`: what a checkpoint gives, whatever its form.
2. `token_prompts`: markers, lengths and expansion of ColBERT, from their settings to token ids.
3. `pylate`, `bge_m3`: one form each.
4. `reader`: chooses the form.
"""
