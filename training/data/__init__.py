"""From files to checked examples.

In reading order: `sources` finds the rows, `cells` checks one row, `examples` checks all of them, `problems` gathers
what is wrong.
"""
