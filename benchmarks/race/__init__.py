"""The race: encort and other systems on the same texts with the same threads, each in its own environment.

In reading order: `systems` lists the systems and runs each in its own process, `models` and `workload` give what they
embed, `participants` holds what one system did so far, `race` is the command. `tables` writes the tables of the
documents from results, `compare` says what became slower between two results.
"""
