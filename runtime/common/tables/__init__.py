"""Read the rows of files: CSV, TSV, JSON lines, JSON, Parquet and CoNLL columns.

Reading order:

1. `lines`: the lines of a file, the same for every reader.
2. `separated`, `json_rows`, `squad`, `conll`, `parquet`: one reader per kind of file.
3. `rows`: the reader of a file by its ending.
"""
