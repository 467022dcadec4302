"""The `encort` command, and what its commands share.

`main` is the lazy group, `commands` are the runtime's own; `readers` and `writers` are input and output, `records` what
is written for each input.
"""
