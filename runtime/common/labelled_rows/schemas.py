"""The kinds of labelled rows: which columns each has, and how an example is made of a row."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from encort.runtime.common.labelled_rows.answers import answer_texts_cell, answers_cell
from encort.runtime.common.labelled_rows.cells import (
    RowError,
    optional_cell,
    read_cells,
    read_list,
    score_cell,
    text_cell,
    texts_cell,
)
from encort.runtime.common.labelled_rows.columns import Column, Example, RowSchema
from encort.runtime.common.labelled_rows.labels import follows_cell, label_cell, labels_cell
from encort.runtime.common.labelled_rows.spans import is_inside_word, spans_cell, tag_pieces
from encort.runtime.common.labelled_rows.tags import tags_cell, tokens_cell
from encort.runtime.common.token_lists import TokenKind, join_tokens

_TEXT = Column(role="text", names=["text"])
_TEXT_PAIR = Column(role="text_pair", names=["text_pair"])
_OPTIONAL_PAIR = Column(role="text_pair", names=["text_pair"], is_optional=True)
_TEXT_CELLS = {"text": text_cell, "text_pair": optional_cell(text_cell)}

TEXT_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["label_text", "label"], takes_remaining="one")],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=label_cell),
)
"""A text, or two, with the name of one label."""

MULTI_LABEL_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["labels", "label"], takes_remaining="all")],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=labels_cell),
)
"""A text, or two, with a list of labels, or with one column per label."""

TEXT_REGRESSION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["score", "label"], takes_remaining="one")],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=score_cell),
)
"""A text, or two, with a number."""

NEXT_SENTENCE = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["label", "label_text"], takes_remaining="one")],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=follows_cell),
)
"""Two texts; the label is 1 if the second follows, 0 if not, -1 if it is unknown."""

TEXTS = RowSchema(
    columns=[_TEXT],
    parse=lambda values: {**read_cells(values, text=text_cell), "label": None},
)
"""A text without a label."""

SENTENCE_PAIRS = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["score", "label"], is_optional=True)],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=optional_cell(score_cell)),
)
"""Two texts with their similarity; None where the table has no such column, which means that they are alike."""

RETRIEVAL_PAIRS = RowSchema(
    columns=[
        Column(role="query", names=["query", "anchor", "question", "text"]),
        Column(role="document", names=["document", "positive", "passage", "context", "text_pair"]),
        Column(role="negatives", names=["negatives", "negative"], is_optional=True),
    ],
    parse=lambda values: {
        **read_cells(values, query=text_cell, document=text_cell, negatives=optional_cell(texts_cell)),
        "label": None,
    },
)
"""A query, a document that answers it, and in `negatives` documents that do not; None if there is no such column."""


_MAX_SPLIT_WORDS = 0.05
"""Largest share of spans that begin or end inside of a word by mistake, where words are separated by spaces."""
_MAX_STRAY_SPACES = 0.05
"""Largest share of tokens of white space by mistake, where the tokens are words."""


def token_classification(kind: TokenKind) -> RowSchema:
    """Return the schema of tokens with a tag each, or of a text with labelled spans.

    An example has `text`, the offsets `starts` and `ends` of the tokens in it, and the tags in `label`.

    Args:
        kind: What the tokens are.
    """
    return RowSchema(
        columns=[
            Column(role="tokens", names=["tokens", "words"], or_role="text"),
            Column(role="text", names=["text"], or_role="tokens"),
            Column(
                role="label", names=["tags", "ner_tags", "labels", "label", "spans", "entities"], takes_remaining="one"
            ),
        ],
        parse=functools.partial(_parse_tags_or_spans, kind=kind),
    )


@dataclass(frozen=True, kw_only=True)
class Tagging:
    """Kind of the tokens that are tagged in labelled rows.

    Attributes:
        tokens: Kind of the items of the lists; None: all rows are texts with labelled spans.
        splits_words: Whether spans often begin or end inside of words: the tokens are characters, or the labelled spans
            do so.
    """

    tokens: TokenKind | None
    splits_words: bool


def find_tagging(rows: Iterable[Mapping[str, Any]]) -> Tagging:
    """Return the kind of the tokens that are tagged.

    Args:
        rows: Values by role of rows of `token_classification`, not checked.
    """
    tokens: Counter[str] = Counter()
    spans = split = 0
    for values in rows:
        if _has_tokens(values):
            cell = read_list(values.get("tokens"))
            if isinstance(cell, list):
                tokens.update(token for token in cell if isinstance(token, str))
            continue
        with suppress(RowError):
            text = values["text"]
            for span in spans_cell(values, "label"):
                spans += 1
                split += is_inside_word(text, span.start) or is_inside_word(text, span.end)
    if not tokens:
        return Tagging(tokens=None, splits_words=split > _MAX_SPLIT_WORDS * spans)
    spaces = sum(count for token, count in tokens.items() if token.isspace())
    are_characters = spaces > _MAX_STRAY_SPACES * tokens.total() or all(len(token) == 1 for token in tokens)
    kind = TokenKind.CHARACTERS if are_characters else TokenKind.WORDS
    return Tagging(tokens=kind, splits_words=are_characters)


def _has_tokens(values: Mapping[str, Any]) -> bool:
    """Return whether a row has tagged tokens. Prodigy writes tokens as objects, beside the text and its spans."""
    tokens = values.get("tokens")
    are_objects = isinstance(tokens, list) and any(isinstance(token, Mapping) for token in tokens)
    return "text" not in values or (tokens is not None and not are_objects)


def _parse_tags_or_spans(values: Mapping[str, Any], *, kind: TokenKind) -> Example:
    if not _has_tokens(values):
        return _parse_spans(values)
    cells = read_cells(values, tokens=tokens_cell, label=tags_cell)
    text, starts = join_tokens(cells["tokens"], kind)
    ends = [start + len(token) for start, token in zip(starts, cells["tokens"], strict=True)]
    return {"text": text, "starts": starts, "ends": ends, "label": cells["label"]}


def _parse_spans(values: Mapping[str, Any]) -> Example:
    cells = read_cells(values, text=text_cell, label=spans_cell)
    starts, ends, tags = tag_pieces(cells["text"], cells["label"])
    skipped = starts[0]  # white space, so that every token of a tokenizer begins in or behind a tagged piece
    return {
        "text": cells["text"].strip(),
        "starts": [start - skipped for start in starts],
        "ends": [end - skipped for end in ends],
        "label": tags,
    }


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
