"""From arrays to results.

Reading order:

1. `results`: the types that users see.
2. `specs`: for each task, the outputs of the graph that it needs, and how results are made of them.
3. `classification`, `spans`, `word_tags`, `answers`: make the results.
"""
