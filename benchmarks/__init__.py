"""What is measured: `encort bench` for any bundle, a race against the peers, scripts for this project's own claims.

Common ground: `machine` (what it was measured on), `timing` (in turn, medians, intervals), `results` (JSON).
`encort bench`: `commands` → `bench`, from `inputs` → `eager`, `load`, `fresh`, `profile`, to `page`.
The race: `race`, of `systems` (a file each in `peers`) on a `workload` and `models`; `tables` writes the tables of the
documents from its results, `compare` holds two of them against each other. `gpu` races `torch_on_gpu` and checks
`gpu_kinds`.
`ways` and `eight_bits` print what docs/decisions quote.
"""
