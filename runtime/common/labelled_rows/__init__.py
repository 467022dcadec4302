"""Turn the rows of labelled files into examples: one parser for training and for evaluation.

Reading order:

1. `problems`: everything that is wrong with the data, told at once.
2. `columns`: columns by role, found by the names of a file, with `--column ROLE=NAME` in place of the conventions.
3. `cells`, `labels`, `tags`, `answers`: checked values of the cells of a row.
4. `schemas`: each kind of labelled rows, from its columns to an example.
"""
