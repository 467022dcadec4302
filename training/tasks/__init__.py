"""One file per task: its labelled data, its head and its metrics.

In reading order: `base` says what every task must give; `text_classification` is the plainest of them;
`token_classification`, `question_answering` and `next_sentence` (with the model of `dual_encoder`) follow;
`sentence_embedding` trains an encoder without a head; `retrieval` has the heads that search. `multi_head` trains
several heads on one encoder.
"""
