"""From tags of tokens to spans of a text."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.tag_schemes import OUTSIDE, Tag, TagScheme
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Matches, Span
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import token_groups, word_groups

Item = TypeVar("Item")


def spans(
    logits: FloatArray, labels: Sequence[str], batch: TokenBatch, *, tags_words: bool = True
) -> list[Matches[Span]]:
    """Return the spans of every text, in reading order.

    A word has the tag of its first token, as in training. Neighbouring words with the same label make one span, unless
    the tag of the first one ends it, or that of the second one begins another.

    Args:
        logits: `(tokens, labels)` float32.
        labels: Tags, of any scheme that `TagScheme` knows.
        batch: Texts, not pairs, with the offsets of their tokens.
        tags_words: Whether a word has one tag. Otherwise every token has its own.
    """
    scores, scheme = softmax(logits), _scheme_of(tuple(labels))
    tags = [scheme.tags[label] for label in labels]
    words = (_words(scores, tags, batch, index, tags_words=tags_words) for index in range(len(batch.texts)))
    return matches_per_text((merge(tagged, str(text)) for tagged, text in zip(words, batch.texts, strict=True)), batch)


@functools.lru_cache(maxsize=64)
def _scheme_of(labels: tuple[str, ...]) -> TagScheme:
    return TagScheme(labels)


def merge(words: Iterable["Word"], text: str) -> list[Span]:
    """Return the spans that the tagged words of a text make, in reading order."""
    return [_span(run, text) for run in _runs(words)]


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
    return merge((Word(tag, 1.0, start, end) for tag, (start, end) in tagged if start < end), text)


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


def _words(
    scores: FloatArray, tags: Sequence[Tag], batch: TokenBatch, index: int, *, tags_words: bool
) -> Iterator[Word]:
    """Yield the words of one text with the tags of their first tokens."""
    for group in word_groups(batch, index) if tags_words else token_groups(batch, index):
        row = scores[group.first]
        best = int(row.argmax())
        yield Word(tags[best], float(row[best]), group.start, group.end)


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


def _span(run: list[Word], text: str) -> Span:
    start, end = run[0].start, run[-1].end
    score = sum(word.score for word in run) / len(run)
    return Span(label=str(run[0].tag.label), score=score, start=start, end=end, text=text[start:end])
