"""Token classification: one tag per word or per character, as for named entities."""

import bisect
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.checkpoints.kept_tokens import KEPT_TOKENS, kept_tokens
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import find_tagging, token_classification
from encort.runtime.common.tag_schemes import OUTSIDE, TagScheme, TagSchemeError
from encort.runtime.common.token_lists import TokenKind
from encort.runtime.tasks.spans import spans, spans_of_tags
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import token_groups, word_groups
from encort.training.data.examples import Examples, Schema, check_labels, sort_labels
from encort.training.data.sources import Source
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask, precision_and_recall
from encort.training.tasks.text_classification import label_settings

log = logging.getLogger("encort")

Bounds = tuple[int, int]
"""Start and end of a span in its text, in characters."""

_NO_SPAN = "O"
"""Name of what is in no span, in the table of confusions."""


@dataclass(frozen=True, kw_only=True)
class TokenClassification(TrainingTask):
    """One tag per token, in any scheme of `runtime/common/tag_schemes`.

    Attributes:
        characters: Whether the tokens are characters, white space among them, so that a span may begin or end inside
            of what is written as one word. None finds it in the data, see `find_tagging`.
        tokens: What the lists of tokens hold, which the checkpoint keeps. None: nothing is known, or there are none.
    """

    characters: bool | None = None
    tokens: TokenKind | None = None

    name = "token-classification"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6}

    @property
    def key(self) -> str:
        """Key of the cache; see `TrainingTask`."""
        return f"{self.name} characters={self.characters} tokens={self.tokens}"

    @property
    def schema(self) -> Schema:
        """The examples: texts, the offsets of their tokens, and the tags."""
        return Schema(
            rows=token_classification(self.tokens or TokenKind.WORDS),
            features=datasets.Features(
                {
                    "text": datasets.Value("string"),
                    "starts": datasets.List(datasets.Value("int32")),
                    "ends": datasets.List(datasets.Value("int32")),
                    "label": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def for_model(self, pretrained: Pretrained) -> "TokenClassification":
        """Return the task with `tokens` as the model keeps them from an earlier training.

        Raises:
            CheckpointError: The model keeps something else.
        """
        if self.characters is not None or pretrained.from_scratch:
            return self
        return replace(self, tokens=kept_tokens(pretrained.name, pretrained.config))

    def for_rows(self, rows: Iterable[Mapping[str, Any]]) -> "TokenClassification":
        """Return the task with `characters` and `tokens` as these rows need them, unless they are known already."""
        if self.characters is not None:
            return replace(self, tokens=TokenKind.CHARACTERS if self.characters else TokenKind.WORDS)
        found = find_tagging(rows)
        if found.tokens is None:  # texts with spans
            return replace(self, characters=found.splits_words)
        kind = self.tokens or found.tokens
        if kind is not found.tokens:
            log.warning(
                "the model was trained on lists of %s, and the training data seems to hold %s. They are joined as %s; "
                "if that is wrong, remove %s from the config.json of the model",
                *(kind, found.tokens, kind, KEPT_TOKENS),
            )
        return replace(self, characters=kind is TokenKind.CHARACTERS, tokens=kind)

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return the tags of the training data, sorted; see `TrainingTask`."""
        names = {tag for tags in splits["train"]["label"] for tag in tags or []}
        try:
            scheme = TagScheme(sorted(names))
        except TagSchemeError as error:
            problems.add(f"{sources['train'].name}: {error}")
            return sort_labels([*names])
        # What is one word in the data may be several words of the runtime, such as `U.S.`
        names |= {part for name in names for part in scheme.split(name, 3)}
        if len(names) < 2:
            problems.add(f"{sources['train'].name} has one tag only, {', '.join(names)}; a tagger needs at least two")
        for split, rows in splits.items():
            if split != "train":
                check_labels(rows, sources[split], [*names], problems, lambda tags: tags or [])
        return sort_labels([*names])

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Return the number of spans of each label."""
        scheme = TagScheme({name for names in rows["label"] for name in names})
        tags = ([scheme.tags[name] for name in names] for names in rows["label"])
        pairs = (pair for row in tags for pair in pairwise([OUTSIDE, *row]))
        return Counter(tag.label for before, tag in pairs if tag.label is not None and not tag.continues(before))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a classifier per token."""
        return pretrained.network(
            transformers.AutoModelForTokenClassification,
            # Not a setting of transformers' models; its pipelines have it by this name, and `encort export` reads it.
            aggregation_strategy="simple" if self.characters else "first",
            **{KEPT_TOKENS: self.tokens},
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of the network and one label per token of the tokenizer; see `TrainingTask`."""
        batch = pretrained.tokenizer(rows["text"], return_offsets=True, all_cores=True)
        index, scheme = {label: number for number, label in enumerate(examples.labels)}, TagScheme(examples.labels)
        tagged = zip(rows["starts"], rows["label"], strict=True)
        tags = [
            _tag_tokens(batch, row, *words, scheme, every=bool(self.characters)) for row, words in enumerate(tagged)
        ]
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
        aggregation = Aggregation.SIMPLE if self.characters else Aggregation.WORD
        predicted = spans(logits, examples.labels, batch, aggregation=aggregation)
        scheme = TagScheme(examples.labels)
        right = [spans_of_tags(row["text"], row["starts"], row["ends"], row["label"], scheme) for row in rows]
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
            confusion=_count_confusion(pairs, [*labels, _NO_SPAN]),
            confusion_labels=[*labels, _NO_SPAN],
        )


def _tag_tokens(
    batch: TokenBatch, row: int, starts: Sequence[int], tags: Sequence[str], scheme: TagScheme, *, every: bool
) -> list[str | None]:
    """Return the tag of every token of the tokenizer; None where none is learned.

    A group of tokens has the tag of the word or character in which it begins, on the token where the runtime reads it.

    Args:
        batch: Texts, with the offsets of their tokens.
        row: Number of the text.
        starts: Offsets of the tagged words or characters.
        tags: Their tags.
        scheme: Scheme of the tags.
        every: Every token has a tag; otherwise the first token of each word only.
    """
    first, stop = batch.cu_seqlens[row : row + 2]
    learned: list[str | None] = [None] * int(stop - first)
    groups = token_groups(batch, row) if every else word_groups(batch, row)
    for owner, parts in groupby(groups, lambda group: bisect.bisect_right(starts, group.start) - 1):
        numbers = [group.first - first for group in parts]
        for number, tag in zip(numbers, scheme.split(tags[owner], len(numbers)), strict=True):
            learned[number] = tag
    return learned


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
    """Count spans by right and predicted label; bounds that only one side has are `_NO_SPAN` on the other."""
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for right, predicted in pairs:
        for bounds in {**right, **predicted}:
            counts[index[right.get(bounds, _NO_SPAN)], index[predicted.get(bounds, _NO_SPAN)]] += 1
    return counts
