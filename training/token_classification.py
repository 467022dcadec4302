"""Words or characters with tags to a network that tags tokens."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import seqeval.metrics
import transformers

from encort.runtime.corpora import text_of_tokens
from encort.runtime.tokens import TokenBatch
from encort.training.examples import (
    Column,
    Example,
    Examples,
    Problems,
    RowError,
    Schema,
    check_labels,
    list_cell,
    sorted_labels,
)
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.sources import Source
from encort.training.task import Scores, TrainingTask
from encort.training.text_classification import label_settings


def _tagged(values: Mapping[str, Any]) -> Example:
    tokens, tags = list_cell(values, "tokens"), list_cell(values, "label")
    if not tokens or not "".join(tokens).strip():
        raise RowError("no tokens")
    if not all(tokens):
        raise RowError("a token is empty")
    if len(tokens) != len(tags):
        raise RowError(f"{'more' if len(tags) > len(tokens) else 'fewer'} tags than tokens")
    text, starts = text_of_tokens(tokens)
    return {"text": text, "starts": starts, "label": [tag.strip() for tag in tags]}


class TokenClassification(TrainingTask):
    """A tag a token, as for named entities."""

    name = "token-classification"
    metric = "f1"
    schema = Schema(
        columns=[
            Column(role="tokens", names=["tokens", "words"]),
            Column(role="label", names=["tags", "ner_tags", "labels"]),
        ],
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "starts": datasets.List(datasets.Value("int32")),
                "label": datasets.List(datasets.Value("string")),
            }
        ),
        example=_tagged,
    )

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        names = {tag for tags in splits["train"]["label"] for tag in tags or []}
        # A word of several pieces goes on with what its token begins.
        names |= {_inside(tag) for tag in names}
        if len(names) < 2:
            problems.add(f"{sources['train'].name} has one tag only, {', '.join(names)}; a tagger needs at least two")
        for split, rows in splits.items():
            if split != "train":
                check_labels(rows, sources[split], [*names], problems, lambda tags: tags or [])
        return sorted_labels([*names])

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        return Counter(tag for tags in rows["label"] for tag in tags if not tag.startswith("I-"))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(
            transformers.AutoModelForTokenClassification,
            # Not a setting of transformers' models; its pipelines have it by this name, and `encort export` reads it.
            aggregation_strategy="first" if _tags_words(examples) else "simple",
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        batch = pretrained.tokenizer(rows["text"], places=True)
        index = {label: number for number, label in enumerate(examples.labels)}
        tags_words = _tags_words(examples)
        tags = [
            _token_tags(batch, *row, tags_words=tags_words)
            for row in zip(range(len(batch)), rows["starts"], rows["label"], strict=True)
        ]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "labels": [[IGNORED if tag is None else index[tag] for tag in row] for row in tags],
        }

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        names, counts = np.array(examples.labels), expected != IGNORED
        right = [names[row[mask]].tolist() for row, mask in zip(expected, counts, strict=True)]
        given = [names[row[mask]].tolist() for row, mask in zip(found.argmax(axis=2), counts, strict=True)]
        report = seqeval.metrics.classification_report(right, given, output_dict=True, zero_division=0)
        total = report["micro avg"]
        return Scores(
            metrics={"f1": float(total["f1-score"]), "precision": total["precision"], "recall": total["recall"]},
            by_label={name: row for name, row in report.items() if not name.endswith(" avg")},
        )


def _tags_words(examples: Examples) -> bool:
    """Whether words were tagged, and not characters, where a tag may begin inside of what is written as one word."""
    return any(end - start > 1 for starts in examples.train["starts"] for start, end in pairwise(starts))


def _token_tags(
    batch: TokenBatch, row: int, starts: Sequence[int], tags: Sequence[str], *, tags_words: bool
) -> Iterator[str | None]:
    """The tag of every token: that of the character where it begins; None where none is learned.

    This is the reverse of how the runtime makes spans of tags: a word has the tag of its first token.
    """
    assert batch.places is not None
    tokens = slice(batch.cu_seqlens[row], batch.cu_seqlens[row + 1])
    words, begins = batch.places.words[tokens], batch.places.starts[tokens]
    owners = np.searchsorted(starts, begins, side="right") - 1
    before = -1
    for word, begin, owner in zip(words, begins, owners, strict=True):
        if word < 0 or (tags_words and word == before):
            yield None
        else:
            yield tags[owner] if begin == starts[owner] else _inside(tags[owner])
        before = word


def _inside(tag: str) -> str:
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag
