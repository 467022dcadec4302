"""The bundle: the folder that export writes and the runtime reads.

In reading order: `manifest` is what `encort.json` says, `schema` reads it strictly, `bundle` opens the folder and
checks its files, `cpu` tells which variants this processor can run.
"""
