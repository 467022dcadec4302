"""Words or characters with tags to a network that tags tokens."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers

from encort.runtime.common.corpora import text_of_tokens
from encort.runtime.tasks.spans import spans, spans_of_tags
from encort.runtime.text.token_batch import TokenBatch
from encort.training.data.cells import list_cell, read_cells, refuse_if
from encort.training.data.examples import Column, Example, Examples, Schema, check_labels, sorted_labels
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask, precision_and_recall
from encort.training.tasks.text_classification import label_settings

OUTSIDE = "O"
_OTHER_SCHEMES = re.compile(r"[SELUM]-")
"""Tags of schemes that mark the ends of spans too, as BIOES and BILOU."""

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TokenClassification(TrainingTask):
    """A tag a token, as for named entities.

    Attributes:
        characters: The tokens are characters, white space among them, so that a tag may begin or end inside of what is
            written as one word. None finds it in the data: there is white space among the tokens, or all are single
            characters.
    """

    characters: bool | None = None

    name = "token-classification"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6}

    @property
    def key(self) -> str:
        return f"{self.name} characters={self.characters}"

    @property
    def schema(self) -> Schema:
        return Schema(
            columns=[
                Column(role="tokens", names=["tokens", "words"]),
                Column(role="label", names=["tags", "ner_tags", "labels"]),
            ],
            features=datasets.Features(
                {
                    "text": datasets.Value("string"),
                    "starts": datasets.List(datasets.Value("int32")),
                    "ends": datasets.List(datasets.Value("int32")),
                    "label": datasets.List(datasets.Value("string")),
                }
            ),
            example=functools.partial(_tagged, characters=bool(self.characters)),
        )

    def for_rows(self, rows: Iterable[Mapping[str, Any]]) -> "TokenClassification":
        if self.characters is not None:
            return self
        tokens = {token for row in rows for token in row.get("tokens") or () if isinstance(token, str)}
        has_space = any(token.isspace() for token in tokens)
        return TokenClassification(characters=has_space or all(len(token) == 1 for token in tokens))

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
        return Counter(
            tag.removeprefix("B-")
            for tags in rows["label"]
            for tag in tags
            if tag != OUTSIDE and not tag.startswith("I-")
        )

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(
            transformers.AutoModelForTokenClassification,
            # Not a setting of transformers' models; its pipelines have it by this name, and `encort export` reads it.
            aggregation_strategy="simple" if self.characters else "first",
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        batch = pretrained.tokenizer(rows["text"], return_offsets=True, all_cores=True)
        index = {label: number for number, label in enumerate(examples.labels)}
        tagged = zip(rows["starts"], rows["label"], strict=True)
        tags = [_token_tags(batch, row, *words, every=bool(self.characters)) for row, words in enumerate(tagged)]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "labels": [[IGNORED if tag is None else index[tag] for tag in row] for row in tags],
        }

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Of spans, as they are served: right are those whose place and label are right."""
        batch = pretrained.tokenizer(rows["text"][:], return_offsets=True, all_cores=True)
        logits = found[np.arange(found.shape[1]) < batch.lengths[:, None]]
        given = spans(logits, examples.labels, batch, tags_words=not self.characters)
        right = [spans_of_tags(row["text"], row["starts"], row["ends"], row["label"]) for row in rows]
        pairs = [
            ({(span.start, span.end): span.label for span in a}, {(span.start, span.end): span.label for span in b})
            for a, b in zip(right, given, strict=True)
        ]
        labels = sorted({span.label for each in (*right, *given) for span in each})
        by_label = {label: _span_scores(pairs, label) for label in labels}
        total = _span_scores(pairs, None)
        return Scores(
            metrics={"f1": total["f1-score"], "precision": total["precision"], "recall": total["recall"]},
            by_label=by_label,
            confusion=_confusion(pairs, [*labels, OUTSIDE]),
            confusion_labels=[*labels, OUTSIDE],
        )


def _tagged(values: Mapping[str, Any], *, characters: bool) -> Example:
    cells = read_cells(values, tokens=tokens_cell, label=tags_cell)
    text, starts = text_of_tokens(cells["tokens"], characters=characters)
    ends = [start + len(token) for start, token in zip(starts, cells["tokens"], strict=True)]
    return {"text": text, "starts": starts, "ends": ends, "label": cells["label"]}


def tokens_cell(values: Mapping[str, Any], role: str) -> list[str]:
    tokens = list_cell(values, role)
    refuse_if({"no tokens": not "".join(tokens).strip(), "a token is empty": not all(tokens)})
    return tokens


def tags_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """As many tags as there are tokens; where these are no list, their own cell tells."""
    tags, tokens = list_cell(values, role), values.get("tokens")
    count = len(tokens) if isinstance(tokens, list) else len(tags)
    refuse_if(
        {
            "more tags than tokens": len(tags) > count,
            "fewer tags than tokens": len(tags) < count,
            "a tag is empty": not all(tag.strip() for tag in tags),
            "tags are of another scheme than BIO: B- begins a span, I- goes on with it, O is outside": any(
                map(_OTHER_SCHEMES.match, tags)
            ),
        }
    )
    return [tag.strip() for tag in tags]


def _token_tags(
    batch: TokenBatch, row: int, starts: Sequence[int], tags: Sequence[str], *, every: bool
) -> Iterator[str | None]:
    """The tag of every token: that of the word or character where it begins; None where none is learned.

    This is the reverse of how the runtime makes spans of tags.

    Args:
        every: All tokens of a word have one; otherwise its first.
    """
    assert batch.offsets is not None
    tokens = slice(batch.cu_seqlens[row], batch.cu_seqlens[row + 1])
    words, text = batch.offsets.words[tokens], str(batch.texts[row])
    begins = [
        _without_space(text, *place)
        for place in zip(batch.offsets.starts[tokens], batch.offsets.ends[tokens], strict=True)
    ]
    owners = np.searchsorted(starts, begins, side="right") - 1
    before = -1
    for word, begin, owner in zip(words, begins, owners, strict=True):
        if word < 0 or (word == before and not every):
            yield None
        else:
            yield tags[owner] if begin == starts[owner] else _inside(tags[owner])
        before = word


def _without_space(text: str, start: int, end: int) -> int:
    """Where a token begins whose tokenizer counts the space before a word to it."""
    return start + next((skipped for skipped in range(end - start) if not text[start + skipped].isspace()), 0)


def _inside(tag: str) -> str:
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def _span_scores(
    pairs: Sequence[tuple[Mapping[Place, str], Mapping[Place, str]]], label: str | None
) -> dict[str, float]:
    """Over the spans of that label; of all without one."""
    wanted = [[{item for item in side.items() if label in (None, item[1])} for side in pair] for pair in pairs]
    both = sum(len(right & given) for right, given in wanted)
    return precision_and_recall(both, sum(len(right) for right, _ in wanted), sum(len(given) for _, given in wanted))


def _confusion(pairs: Sequence[tuple[Mapping[Place, str], Mapping[Place, str]]], labels: Sequence[str]) -> Any:
    """Spans by right and found label; one whose place is not found, or not right, is outside there."""
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for right, given in pairs:
        for place in {**right, **given}:
            counts[index[right.get(place, OUTSIDE)], index[given.get(place, OUTSIDE)]] += 1
    return counts
