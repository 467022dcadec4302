"""From arrays to results.

In reading order: `specs` says which outputs each task needs and what it makes of them; `results` are the types that
users see; `classification`, `spans` and `answers` make them.
"""
