"""The `encort` command, and what its commands share.

Reading order:

1. `main`: the lazy group of all commands, and the exit codes.
2. `commands`: `embed`, `predict` and `inspect`.
3. `readers`: texts from arguments, files or standard input.
4. `records`: one record per input.
5. `writers`: JSON lines, numpy or Parquet.
"""
