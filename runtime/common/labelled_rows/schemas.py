"""The kinds of labelled rows: which columns each has, and how an example is made of a row."""

import functools
from collections.abc import Mapping
from typing import Any

from encort.runtime.common.labelled_rows.answers import answer_texts_cell, answers_cell
from encort.runtime.common.labelled_rows.cells import optional_cell, read_cells, score_cell, text_cell
from encort.runtime.common.labelled_rows.columns import Column, Example, RowSchema
from encort.runtime.common.labelled_rows.labels import follows_cell, label_cell, labels_cell
from encort.runtime.common.labelled_rows.tags import tags_cell, tokens_cell
from encort.runtime.common.tables.conll import join_tokens

_TEXT = Column(role="text", names=["text"])
_TEXT_PAIR = Column(role="text_pair", names=["text_pair"])
_OPTIONAL_PAIR = Column(role="text_pair", names=["text_pair"], is_optional=True)
_TEXT_CELLS = {"text": text_cell, "text_pair": optional_cell(text_cell)}

TEXT_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["label_text", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=label_cell),
)
"""A text, or two, with the name of one label."""

MULTI_LABEL_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["labels", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=labels_cell),
)
"""A text, or two, with a list of labels."""

TEXT_REGRESSION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["score", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=score_cell),
)
"""A text, or two, with a number."""

NEXT_SENTENCE = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["label", "label_text"], or_remaining=True)],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=follows_cell),
)
"""Two texts; the label is 1 if the second follows, 0 if not, -1 if it is unknown."""

SENTENCE_PAIRS = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["score", "label"], is_optional=True)],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=optional_cell(score_cell)),
)
"""Two texts with their similarity; None where the table has no such column, which means that they are alike."""


def token_classification(*, characters: bool, any_scheme: bool = False) -> RowSchema:
    """Return the schema of tokens with a tag each.

    An example has `text`, the offsets `starts` and `ends` of the tokens in it, and the tags in `label`.

    Args:
        characters: The tokens are characters; see `join_tokens`.
        any_scheme: Also accept tags of other schemes than BIO.
    """
    return RowSchema(
        columns=[
            Column(role="tokens", names=["tokens", "words"]),
            Column(role="label", names=["tags", "ner_tags", "labels"]),
        ],
        parse=functools.partial(_parse_tagged_tokens, characters=characters, any_scheme=any_scheme),
    )


def _parse_tagged_tokens(values: Mapping[str, Any], *, characters: bool, any_scheme: bool) -> Example:
    cells = read_cells(values, tokens=tokens_cell, label=functools.partial(tags_cell, any_scheme=any_scheme))
    text, starts = join_tokens(cells["tokens"], characters=characters)
    ends = [start + len(token) for start, token in zip(starts, cells["tokens"], strict=True)]
    return {"text": text, "starts": starts, "ends": ends, "label": cells["label"]}


def _parse_located_answers(values: Mapping[str, Any]) -> Example:
    cells = read_cells(values, question=text_cell, context=text_cell, label=answers_cell)
    answers = cells.pop("label")
    return {**cells, "label": [text for text, _ in answers], "starts": [start for _, start in answers]}


_QUESTION_COLUMNS = (
    Column(role="question", names=["question"]),
    Column(role="context", names=["context"]),
    Column(role="label", names=["answers", "answer"]),
    Column(role="answer_start", names=["answer_start"], is_optional=True),
    Column(role="is_impossible", names=["is_impossible"], is_optional=True),
)

LOCATED_ANSWERS = RowSchema(columns=_QUESTION_COLUMNS, parse=_parse_located_answers)
"""A question, its context, and the right answers in `label` with their offsets in `starts`, as training needs them.

A question without answers has none in its context.
"""

ANSWER_TEXTS = RowSchema(
    columns=_QUESTION_COLUMNS,
    parse=functools.partial(read_cells, question=text_cell, context=text_cell, label=answer_texts_cell),
)
"""A question, its context, and the texts of the right answers; a question without them has none in its context."""
