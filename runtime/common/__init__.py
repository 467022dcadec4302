"""What every room shares: errors, optional packages, folders that are complete or absent, and tables.

`errors` draws the tree of errors; `extras` asks for optional packages; `folders` writes a folder in one step;
`tables` reads rows of any table, with `corpora` for CoNLL and SQuAD.
"""
