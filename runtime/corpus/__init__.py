"""Jobs over corpora: many inputs, of which some may be bad, in memory of one size, that go on after a kill.

Reading order:

1. `inputs`: one input, and the text of a row.
2. `records`: results as records, one per input; `retrieval_records`: those of tokens and words.
3. `row_errors`: records of many inputs; an input that cannot be used stops the job, is left out, or gives an error.
4. `columns`: records as columns of Arrow.
5. `tables`: an Arrow table in, the table with result columns out.
6. `sources`: the files of a corpus, `row_files`: those of CSV and JSON, as chunks of tables.
7. `outputs`: part files of Parquet, and an .npy file that grows; `job_log`: what is finished.
8. `job`: the walk from the files to the outputs.

Only `columns` and those after it need pyarrow.
"""
