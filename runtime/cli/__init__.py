"""The `encort` command, and what its commands share.

Reading order:

1. `main`: the lazy group of all commands, and the exit codes.
2. `streams`: standard input, output and error, also closed ones.
3. `options`: arguments and options that commands share.
4. `commands`: `embed`, `predict` and `rank`. `inspect` and `tokenize` run no graph.
5. `bundles`: `compat` and `push`.
6. `readers`: texts from arguments, files or standard input.
7. `records`: one record per input; `zero_shot`: those of any labels.
8. `writers`: JSON lines, numpy or Parquet.
"""
