"""Types and functions that all packages share.

Reading order:

1. `errors`: the tree of all errors.
2. `output`: escapes for terminals, JSON and Markdown.
3. `arrays`, `checks`, `extras`, `folders`: types of arrays, checks of options, optional packages, writing of folders.
   `forks`: what must not wait in a forked child. `token_lists`: texts that are joined from words or characters.
4. `tables`: rows of any file, by its ending.
5. `labelled_rows`: labelled rows for training and evaluation.
6. `checkpoints`: the files of a checkpoint in Hugging Face layout.
7. `tag_schemes`, `aggregation`: the meaning of tags such as `B-LOC`, and how spans are made of them.
8. `answer_metrics`: scores of answers.
"""
