"""From arrays to results.

Reading order:

1. `results`: the types that users see.
2. `task_spec`: the outputs of the graph that a task needs, and how results are made of them. `specs`: one per task.
3. `quantization`, `similarity`, `classification`, `spans`, `word_tags`, `answers`, `fill_mask`: make the results.
"""
