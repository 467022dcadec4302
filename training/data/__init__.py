"""From labelled files to checked examples.

In reading order: `sources` finds the rows of every split; `examples` makes examples of them, by the rows' parser in
`runtime/common/labelled_rows`, and keeps them in the cache of `datasets`.
"""
