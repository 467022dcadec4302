"""Token classification: one tag per word or per character, as for named entities."""

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers

from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import are_characters, token_classification
from encort.runtime.tasks.spans import OUTSIDE, spans, spans_of_tags
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import token_groups, word_groups
from encort.training.data.examples import Examples, Schema, check_labels, sort_labels
from encort.training.data.sources import Source
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask, precision_and_recall
from encort.training.tasks.text_classification import label_settings

Bounds = tuple[int, int]
"""Start and end of a span in its text, in characters."""


@dataclass(frozen=True, kw_only=True)
class TokenClassification(TrainingTask):
    """One tag per token, in the BIO scheme or without prefixes.

    Attributes:
        characters: Whether the tokens are characters, white space among them, so that a span may begin or end inside
            of what is written as one word. None finds it in the data, see `are_characters`.
    """

    characters: bool | None = None

    name = "token-classification"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6}

    @property
    def key(self) -> str:
        """Key of the cache; see `TrainingTask`."""
        return f"{self.name} characters={self.characters}"

    @property
    def schema(self) -> Schema:
        """The examples: texts, the offsets of their tokens, and the tags."""
        return Schema(
            rows=token_classification(characters=bool(self.characters)),
            features=datasets.Features(
                {
                    "text": datasets.Value("string"),
                    "starts": datasets.List(datasets.Value("int32")),
                    "ends": datasets.List(datasets.Value("int32")),
                    "label": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def for_rows(self, rows: Iterable[Mapping[str, Any]]) -> "TokenClassification":
        """Return the task with `characters` as these rows need it."""
        if self.characters is not None:
            return self
        return TokenClassification(characters=are_characters(rows))

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return the tags of the training data, sorted; see `TrainingTask`."""
        names = {tag for tags in splits["train"]["label"] for tag in tags or []}
        # A token of several words begins a span in its first word and goes on with it in the others.
        names |= {_inside(tag) for tag in names}
        if len(names) < 2:
            problems.add(f"{sources['train'].name} has one tag only, {', '.join(names)}; a tagger needs at least two")
        for split, rows in splits.items():
            if split != "train":
                check_labels(rows, sources[split], [*names], problems, lambda tags: tags or [])
        return sort_labels([*names])

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Return the number of spans of each label; without prefixes, the number of tokens."""
        return Counter(
            tag.removeprefix("B-")
            for tags in rows["label"]
            for tag in tags
            if tag != OUTSIDE and not tag.startswith("I-")
        )

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a classifier per token."""
        return pretrained.network(
            transformers.AutoModelForTokenClassification,
            # Not a setting of transformers' models; its pipelines have it by this name, and `encort export` reads it.
            aggregation_strategy="simple" if self.characters else "first",
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of the network and one label per token of the tokenizer; see `TrainingTask`."""
        batch = pretrained.tokenizer(rows["text"], return_offsets=True, all_cores=True)
        index = {label: number for number, label in enumerate(examples.labels)}
        tagged = zip(rows["starts"], rows["label"], strict=True)
        tags = [_tag_tokens(batch, row, *words, every=bool(self.characters)) for row, words in enumerate(tagged)]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "labels": [[IGNORED if tag is None else index[tag] for tag in row] for row in tags],
        }

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return the scores of spans as they will be served; a span is right if its bounds and label are right."""
        batch = pretrained.tokenizer(rows["text"][:], return_offsets=True, all_cores=True)
        logits = outputs[np.arange(outputs.shape[1]) < batch.lengths[:, None]]
        predicted = spans(logits, examples.labels, batch, tags_words=not self.characters)
        right = [spans_of_tags(row["text"], row["starts"], row["ends"], row["label"]) for row in rows]
        pairs = [
            ({(span.start, span.end): span.label for span in a}, {(span.start, span.end): span.label for span in b})
            for a, b in zip(right, predicted, strict=True)
        ]
        labels = sorted({span.label for spans_of_text in (*right, *predicted) for span in spans_of_text})
        by_label = {label: _score_spans(pairs, label) for label in labels}
        total = _score_spans(pairs, None)
        return Scores(
            metrics={"f1": total["f1-score"], "precision": total["precision"], "recall": total["recall"]},
            by_label=by_label,
            confusion=_count_confusion(pairs, [*labels, OUTSIDE]),
            confusion_labels=[*labels, OUTSIDE],
        )


def _tag_tokens(
    batch: TokenBatch, row: int, starts: Sequence[int], tags: Sequence[str], *, every: bool
) -> list[str | None]:
    """Return the tag of every token of the tokenizer; None where none is learned.

    A group of tokens has the tag of the word or character in which it begins, on the token where the runtime reads it.

    Args:
        batch: Texts, with the offsets of their tokens.
        row: Number of the text.
        starts: Offsets of the tagged words or characters.
        tags: Their tags.
        every: Every token has a tag; otherwise the first token of each word only.
    """
    first, stop = batch.cu_seqlens[row : row + 2]
    learned: list[str | None] = [None] * int(stop - first)
    previous = -1
    for group in token_groups(batch, row) if every else word_groups(batch, row):
        owner = bisect.bisect_right(starts, group.start) - 1
        learned[group.first - first] = _inside(tags[owner]) if owner == previous else tags[owner]
        previous = owner
    return learned


def _inside(tag: str) -> str:
    """Return the tag that goes on with a span of this tag."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def _score_spans(
    pairs: Sequence[tuple[Mapping[Bounds, str], Mapping[Bounds, str]]], label: str | None
) -> dict[str, float]:
    """Return the scores of one label; of all labels together for None.

    Args:
        pairs: Right and predicted spans of each text: labels by bounds.
        label: The label.
    """
    chosen = [[{item for item in side.items() if label in (None, item[1])} for side in pair] for pair in pairs]
    hits = sum(len(right & predicted) for right, predicted in chosen)
    return precision_and_recall(
        hits, sum(len(right) for right, _ in chosen), sum(len(predicted) for _, predicted in chosen)
    )


def _count_confusion(pairs: Sequence[tuple[Mapping[Bounds, str], Mapping[Bounds, str]]], labels: Sequence[str]) -> Any:
    """Count spans by right and predicted label; bounds that only one side has are `OUTSIDE` on the other."""
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for right, predicted in pairs:
        for bounds in {**right, **predicted}:
            counts[index[right.get(bounds, OUTSIDE)], index[predicted.get(bounds, OUTSIDE)]] += 1
    return counts
