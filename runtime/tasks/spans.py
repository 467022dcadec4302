"""Token tags to spans of the text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.results import Matches, Span, counted, end_of_mark, softmax
from encort.runtime.text.token_batch import TokenBatch

OUTSIDE = "O"


def spans(
    logits: FloatArray, labels: Sequence[str], batch: TokenBatch, *, tags_words: bool = True
) -> list[Matches[Span]]:
    """Spans of every text, in reading order.

    A word has the tag of its first token, as it had in training. Words side by side with one label are one span,
    unless a tag begins with `B-`.

    Args:
        logits: `(tokens, labels)` float32.
        labels: Tags, with the prefixes `B-` and `I-` or without; `O` is outside of every span.
        batch: Texts, not pairs, with the places of their tokens.
        tags_words: Otherwise every token is a word of its own.
    """
    scores = softmax(logits)
    words = (_words(scores, labels, batch, index, tags_words=tags_words) for index in range(len(batch.texts)))
    found = (merge(tagged, str(text)) for tagged, text in zip(words, batch.texts, strict=True))
    return counted(found, batch)


def merge(words: Iterable["Word"], text: str) -> list[Span]:
    """Spans of a text from the tags of its words, in reading order."""
    return [_span(run, text) for run in _runs(words)]


def spans_of_tags(text: str, starts: Sequence[int], ends: Sequence[int], tags: Sequence[str]) -> list[Span]:
    """Spans of a text whose words were tagged by hand.

    Args:
        starts: Where in the text each word begins.
        ends: Where it ends.
    """
    tagged = zip(tags, starts, ends, strict=True)
    return merge((Word(tag, 1.0, start, end) for tag, start, end in tagged if text[start:end].strip()), text)


@dataclass(frozen=True)
class Word:
    """A word's tag, its probability, and its place in the text."""

    tag: str
    score: float
    start: int
    end: int

    @property
    def label(self) -> str:
        return self.tag[2:] if self.tag[:2] in ("B-", "I-") else self.tag


def _words(
    scores: FloatArray, labels: Sequence[str], batch: TokenBatch, index: int, *, tags_words: bool
) -> Iterator[Word]:
    """The words of one text with the tags of their first tokens."""
    assert batch.offsets is not None
    tokens = slice(batch.cu_seqlens[index], batch.cu_seqlens[index + 1])
    words, starts, ends = batch.offsets.words[tokens], batch.offsets.starts[tokens], batch.offsets.ends[tokens]
    if not tags_words:
        words = np.where(words < 0, -1, np.arange(len(words)))
    firsts = np.flatnonzero((words >= 0) & (np.diff(words, prepend=-1) != 0))
    lasts = np.flatnonzero((words >= 0) & (np.diff(words, append=-1) != 0))
    text = str(batch.texts[index])
    for first, last in zip(firsts, lasts, strict=True):
        start, end = int(starts[first]), end_of_mark(text, int(ends[last]))
        # To some tokenizers white space is a word, or a part of the word behind it.
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if start < end:
            row = scores[tokens][first]
            best = int(row.argmax())
            yield Word(labels[best], float(row[best]), start, end)


def _runs(words: Iterable[Word]) -> list[list[Word]]:
    """Neighbouring words that make one span each."""
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
