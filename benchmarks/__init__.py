"""Measure speed, memory and fidelity: of any bundle, of encort beside other systems, and for this project's decisions.

In reading order: `machine` describes the hardware and the versions, `timing` measures systems in turn and gives medians
with intervals, `results` reads and writes results as JSON.

`commands` is `encort bench`, which measures one bundle (folder `bundle`). Folder `race` races encort against the
systems in `peers`, each in its own environment, and writes the tables of the documents. Folder `gpu` checks and times
CUDA graphs. Folder `studies` has the scripts whose output docs/decisions quotes. Folder `results` has the results.
"""
