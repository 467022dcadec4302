"""From tags of tokens to spans of a text."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Matches, Span
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import token_groups, word_groups

OUTSIDE = "O"
"""Tag of a word that is in no span."""

Item = TypeVar("Item")


def spans(
    logits: FloatArray, labels: Sequence[str], batch: TokenBatch, *, tags_words: bool = True
) -> list[Matches[Span]]:
    """Return the spans of every text, in reading order.

    A word has the tag of its first token, as in training. Neighbouring words with the same label make one span, unless
    the second tag begins with `B-`.

    Args:
        logits: `(tokens, labels)` float32.
        labels: Tags, with the prefixes `B-` and `I-` or without; `O` is outside of every span.
        batch: Texts, not pairs, with the offsets of their tokens.
        tags_words: Whether a word has one tag. Otherwise every token has its own.
    """
    scores = softmax(logits)
    words = (_words(scores, labels, batch, index, tags_words=tags_words) for index in range(len(batch.texts)))
    return matches_per_text((merge(tagged, str(text)) for tagged, text in zip(words, batch.texts, strict=True)), batch)


def merge(words: Iterable["Word"], text: str) -> list[Span]:
    """Return the spans that the tagged words of a text make, in reading order."""
    return [_span(run, text) for run in _runs(words)]


def spans_of_tags(text: str, starts: Sequence[int], ends: Sequence[int], tags: Sequence[str]) -> list[Span]:
    """Return the spans of a text whose words were tagged by hand.

    Args:
        text: The text.
        starts: Offset of the first character of each word.
        ends: Offset behind the last character of each word.
        tags: Tag of each word.
    """
    edges = itertools.starmap(Graphemes(text).visible, zip(starts, ends, strict=True))
    tagged = zip(tags, edges, strict=True)
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

    tag: str
    score: float
    start: int
    end: int

    @property
    def label(self) -> str:
        """The tag without its prefix."""
        return self.tag[2:] if self.tag[:2] in ("B-", "I-") else self.tag


def _words(
    scores: FloatArray, labels: Sequence[str], batch: TokenBatch, index: int, *, tags_words: bool
) -> Iterator[Word]:
    """Yield the words of one text with the tags of their first tokens."""
    for group in word_groups(batch, index) if tags_words else token_groups(batch, index):
        row = scores[group.first]
        best = int(row.argmax())
        yield Word(labels[best], float(row[best]), group.start, group.end)


def _runs(words: Iterable[Word]) -> list[list[Word]]:
    """Group neighbouring words that make one span."""
    runs: list[list[Word]] = []
    before = OUTSIDE
    for word in words:
        if word.label != OUTSIDE:
            if word.label == before and not word.tag.startswith("B-"):
                runs[-1].append(word)
            else:
                runs.append([word])
        before = word.label
    return runs


def _span(run: list[Word], text: str) -> Span:
    start, end = run[0].start, run[-1].end
    score = sum(word.score for word in run) / len(run)
    return Span(label=run[0].label, score=score, start=start, end=end, text=text[start:end])
