"""Heads that search: they learn from queries and the documents that answer them.

`pairs` has what all of them share; `sparse_embedding` is SPLADE.
"""
