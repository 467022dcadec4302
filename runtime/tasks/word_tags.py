"""From tags of tokens to tags of given words."""

import bisect
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.tag_schemes import Tag, TagScheme
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Matches, TaggedWord
from encort.runtime.tasks.spans import SCORES, first_scores, matches_per_text, scheme_of
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import TokenGroup, owned_groups, word_groups


def word_tags(
    logits: FloatArray, labels: Sequence[str], batch: TokenBatch, *, aggregation: Aggregation
) -> list[Matches[TaggedWord]]:
    """Return one tag for each given word of every text.

    With `"word"`, a given word that is several words for the tagger, such as `U.S.`, has one tag for the span of its
    parts. Otherwise it is one word, and the scores of its tokens are aggregated.

    Args:
        logits: `(tokens, labels)` float32.
        labels: Tags, of any scheme that `TagScheme` knows.
        batch: Joined words, with the offsets of their tokens.
        aggregation: Which scores of a word's tokens decide.
    """
    scores, scheme = softmax(logits), scheme_of(tuple(labels))
    aggregate = SCORES.get(aggregation, first_scores)
    results = []
    for index, text in enumerate(batch.texts):
        assert isinstance(text, JoinedWords)
        words = [TaggedWord(word=word, tag=None, score=0.0) for word in text.tokens]
        for owner, groups in _parts(batch, index, text, aggregation):
            rows = np.stack([aggregate(scores[group.first : group.last + 1]) for group in groups])
            tag = _join([labels[best] for best in rows.argmax(axis=1)], scheme)
            words[owner] = TaggedWord(word=text.tokens[owner], tag=tag, score=float(rows.max(axis=1).mean()))
        results.append(words)
    return matches_per_text(results, batch)


def _parts(
    batch: TokenBatch, index: int, text: JoinedWords, aggregation: Aggregation
) -> Iterator[tuple[int, list[TokenGroup]]]:
    """Yield the number of each given word with its groups of tokens."""
    if aggregation is Aggregation.WORD:
        groups = word_groups(batch, index)
        for owner, parts in groupby(groups, lambda group: bisect.bisect_right(text.starts, group.start) - 1):
            yield owner, list(parts)
    else:
        for owner, group in owned_groups(batch, index, np.array(text.starts, np.int64)):
            yield owner, [group]


def _join(names: Sequence[str], scheme: TagScheme) -> str:
    """Return the tag of a word whose parts have these tags: that of its first part, up to the end of its span."""
    first, *others = (scheme.tags[name] for name in names)
    ends, before = first.ends, first
    for tag in others:
        if not tag.continues(before):
            break
        ends, before = tag.ends, tag
    joined = Tag(first.label, begins=first.begins, ends=ends)
    return next((name for name, tag in scheme.tags.items() if tag == joined), names[0])
