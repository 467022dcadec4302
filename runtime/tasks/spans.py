"""From tags of tokens to spans of a text."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.tag_schemes import OUTSIDE, Tag, TagScheme
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Matches, Span
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import SubwordMarks, TokenGroup, pipeline_groups, token_groups, word_groups

Item = TypeVar("Item")


def spans(
    logits: FloatArray,
    labels: Sequence[str],
    batch: TokenBatch,
    *,
    aggregation: Aggregation = Aggregation.WORD,
    marks: SubwordMarks = SubwordMarks(),  # noqa: B008 - frozen
) -> list[Matches[Span]]:
    """Return the spans of every text, in reading order.

    Neighbouring words or tokens with the same label make one span, unless the tag of the first one ends it, or that of
    the second one begins another. With `"none"`, each token with a tag is a span, whose label is the whole tag.

    Args:
        logits: `(tokens, labels)` float32.
        labels: Tags, of any scheme that `TagScheme` knows.
        batch: Texts, not pairs, with the offsets of their tokens.
        aggregation: Which tokens have a tag together, and which of their scores decide.
        marks: Signs by which `"first"`, `"average"` and `"max"` find words.
    """
    scores, scheme = softmax(logits), scheme_of(tuple(labels))
    joins, aggregate = aggregation is not Aggregation.NONE, SCORES.get(aggregation, first_scores)
    tags = [scheme.tags[label] if joins else _alone(label, scheme.tags[label]) for label in labels]
    results = []
    for index, text in enumerate(batch.texts):
        groups = _GROUPS[aggregation](batch, index, marks)
        rows = ((group, aggregate(scores[group.first : group.last + 1])) for group in groups)
        words = [Word(tags[row.argmax()], float(row.max()), group.start, group.end) for group, row in rows]
        results.append(merge(words, str(text)))
    return matches_per_text(results, batch)


def first_scores(scores: FloatArray) -> FloatArray:
    """Return the scores of the first token of `(tokens, labels)`."""
    first: FloatArray = scores[0]
    return first


def _average(scores: FloatArray) -> FloatArray:
    """Return the mean scores over the tokens of `(tokens, labels)`."""
    mean: FloatArray = scores.mean(axis=0)
    return mean


def _most_certain(scores: FloatArray) -> FloatArray:
    """Return the scores of the token with the highest score of `(tokens, labels)`."""
    row: FloatArray = scores[scores.max(axis=1).argmax()]
    return row


def _alone(label: str, tag: Tag) -> Tag:
    """Return a tag as a span of its own, with its whole name as its label."""
    return OUTSIDE if tag.label is None else Tag(label, begins=True, ends=True)


SCORES = {Aggregation.AVERAGE: _average, Aggregation.MAX: _most_certain}
"""Functions that make one row of the scores of several tokens, where it is not the row of the first token."""

_Groups = Callable[[TokenBatch, int, SubwordMarks], Iterable[TokenGroup]]
_GROUPS: Mapping[Aggregation, _Groups] = {
    Aggregation.WORD: lambda batch, index, _: word_groups(batch, index),
    Aggregation.NONE: lambda batch, index, _: token_groups(batch, index),
    Aggregation.SIMPLE: lambda batch, index, _: token_groups(batch, index),
    Aggregation.FIRST: pipeline_groups,
    Aggregation.AVERAGE: pipeline_groups,
    Aggregation.MAX: pipeline_groups,
}
"""Ways to group the tokens that have one tag together."""


@functools.lru_cache(maxsize=64)
def scheme_of(labels: tuple[str, ...]) -> TagScheme:
    return TagScheme(labels)


def merge(words: Sequence["Word"], text: str) -> list[Span]:
    """Return the spans that the tagged words of a text make, in reading order, without those of white space alone."""
    graphemes = Graphemes(text, end=max((word.end for word in words), default=0))
    spans = (_span(run, text, graphemes) for run in _runs(words))
    return [span for span in spans if span.text]


def spans_of_tags(
    text: str, starts: Sequence[int], ends: Sequence[int], tags: Sequence[str], scheme: TagScheme
) -> list[Span]:
    """Return the spans of a text whose words were tagged by hand.

    Args:
        text: The text.
        starts: Offset of the first character of each word.
        ends: Offset behind the last character of each word.
        tags: Tag of each word.
        scheme: Scheme of these tags.
    """
    edges = itertools.starmap(Graphemes(text).visible, zip(starts, ends, strict=True))
    tagged = zip(map(scheme.tags.__getitem__, tags), edges, strict=True)
    return merge([Word(tag, 1.0, start, end) for tag, (start, end) in tagged if start < end], text)


def matches_per_text(items: Iterable[Iterable[Item]], batch: TokenBatch) -> list[Matches[Item]]:
    """Return the items of each text with the number of tokens that were read of it."""
    counts = zip(batch.lengths.tolist(), batch.truncated.tolist(), strict=True)
    return [
        Matches(matches, tokens=tokens, truncated=truncated)
        for matches, (tokens, truncated) in zip(items, counts, strict=True)
    ]


@dataclass(frozen=True)
class Word:
    """Tag of a word, the probability of the tag, and the offsets of the word in its text."""

    tag: Tag
    score: float
    start: int
    end: int


def _runs(words: Iterable[Word]) -> list[list[Word]]:
    """Group neighbouring words that make one span."""
    runs: list[list[Word]] = []
    before = OUTSIDE
    for word in words:
        if word.tag.continues(before):
            runs[-1].append(word)
        elif word.tag.label is not None:
            runs.append([word])
        before = word.tag
    return runs


def _span(run: list[Word], text: str, graphemes: Graphemes) -> Span:
    start, end = graphemes.visible(run[0].start, run[-1].end)
    score = sum(word.score for word in run) / len(run)
    return Span(label=str(run[0].tag.label), score=score, start=start, end=end, text=text[start:end])
