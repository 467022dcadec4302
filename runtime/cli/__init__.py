"""The `encort` command, and what its commands share.

Reading order:

1. `main`: the lazy group of all commands, and the exit codes.
2. `streams`: standard input, output and error, also closed ones.
3. `commands`: `embed`, `predict` and `inspect`.
4. `readers`: texts from arguments, files or standard input.
5. `records`: one record per input.
6. `writers`: JSON lines, numpy or Parquet.
"""
