"""Inputs over the limit: which tokens are kept, where windows are cut, and how their results are merged."""

import functools
import itertools

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from encort.runtime.common.arrays import BoolArray, FloatArray, Int64Array
from encort.runtime.common.errors import InputTooLongError
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets, Windows
from encort.runtime.text.windows import cut_longest, cut_windows, merge_windows

# No deadline: the machine may be busy with other work.
settings.register_profile("encort", deadline=None)
settings.load_profile("encort")

Case = tuple[Int64Array, int, int]

SPECIAL = {"<s>": 0, "</s>": 1}
TEMPLATES = {
    "bert": ["<s>", "$A", "</s>", "$B:1", "</s>:1"],
    "roberta": ["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
}
counts = st.integers(0, 40)
texts = st.lists(st.integers(0, 60), min_size=1, max_size=5)


def sequences(*bodies: int, between: int = 1) -> Int64Array:
    """Return the sequences of one or two texts with these numbers of tokens, with special tokens."""
    parts = [[-1], [0] * bodies[0], [-1]]
    if len(bodies) == 2:
        parts += [[-1] * (between - 1), [1] * bodies[1], [-1]]
    return np.array([number for part in parts for number in part], np.int64)


@functools.cache
def library(template: str) -> tokenizers.Tokenizer:
    """Return a tokenizer where every word is a token of its own, so that the kept tokens show."""
    vocabulary = SPECIAL | {
        f"{side}{number}": 2 + 100 * (side == "b") + number for side in "ab" for number in range(100)
    }
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], pair=TEMPLATES[template], special_tokens=list(SPECIAL.items())
    )
    return tokenizer


def encodings(
    template: str, counts: tuple[int, ...], limit: int, side: str = "right"
) -> tuple[tokenizers.Encoding, tokenizers.Encoding]:
    """Return the encoding of an input, whole and truncated by the library."""
    tokenizer = library(template)
    parts = [" ".join(f"{name}{number}" for number in range(count)) for name, count in zip("ab", counts, strict=False)]
    tokenizer.no_truncation()
    whole = tokenizer.encode(*parts)
    tokenizer.enable_truncation(limit, strategy="longest_first", direction=side)
    return whole, tokenizer.encode(*parts)


def assert_keeps_the_tokens_of_the_library(template: str, counts: tuple[int, ...], limit: int) -> None:
    for side in ("right", "left"):
        whole, truncated = encodings(template, counts, limit, side)
        parts = np.array([-1 if part is None else part for part in whole.sequence_ids])
        kept = cut_longest(parts, limit=limit, cuts_beginning=side == "left")
        assert np.array(whole.ids)[kept].tolist() == truncated.ids


@pytest.mark.parametrize("template", TEMPLATES)
@given(first=counts, second=counts, limit=st.integers(4, 50))
def test_a_pair_keeps_the_tokens_of_the_library(template: str, first: int, second: int, limit: int) -> None:
    assert_keeps_the_tokens_of_the_library(template, (first, second), limit)


@given(count=counts, limit=st.integers(2, 50))
def test_a_text_keeps_the_tokens_of_the_library(count: int, limit: int) -> None:
    assert_keeps_the_tokens_of_the_library("bert", (count,), limit)


@pytest.mark.parametrize(
    ("first", "second", "limit", "kept"),
    [
        (9, 9, 9, (3, 3)),
        (9, 9, 10, (3, 4)),
        (10, 9, 10, (4, 3)),
        (9, 10, 10, (3, 4)),
        (3, 9, 10, (3, 4)),
        (9, 3, 10, (4, 3)),
        (4, 9, 10, (3, 4)),
        (9, 4, 10, (4, 3)),
        (2, 9, 10, (2, 5)),
        (9, 2, 10, (5, 2)),
        (0, 9, 10, (0, 7)),
        (9, 0, 10, (7, 0)),
        (5, 5, 3, (0, 0)),
        (5, 5, 4, (0, 1)),
    ],
)
def test_the_longer_text_is_cut_first_and_the_second_keeps_the_odd_token(
    first: int, second: int, limit: int, kept: tuple[int, int]
) -> None:
    parts = sequences(first, second)
    sequences_kept = parts[cut_longest(parts, limit=limit)].tolist()
    assert tuple(map(sequences_kept.count, (0, 1, -1))) == (*kept, 3)
    assert_keeps_the_tokens_of_the_library("bert", (first, second), limit)


def test_no_token_is_kept_if_the_special_tokens_exceed_the_limit() -> None:
    parts = sequences(3, 3, between=2)
    assert set(parts[cut_longest(parts, limit=3)].tolist()) == {-1}


@st.composite
def inputs(draw: st.DrawFn) -> Case:
    """Draw `(sequences, limit, stride)` of a text, or of a pair where the first text leaves room for windows."""
    stride = draw(st.integers(0, 12))
    room = stride + draw(st.integers(1, 14))
    body = draw(st.integers(1, 120))
    if draw(st.booleans()):
        parts = sequences(body)
    else:
        parts = sequences(draw(st.integers(0, 9)), body, between=draw(st.integers(1, 2)))
    return parts, len(parts) - body + room, stride


@given(inputs())
def test_every_token_counts_in_exactly_one_window(case: Case) -> None:
    parts, limit, stride = case
    windows = cut_windows(parts, limit=limit, stride=stride)
    own_tokens = [token for kept, own in windows for token in kept[own].tolist()]
    assert own_tokens == list(range(len(parts)))
    assert all(own.any() and own.shape == kept.shape for kept, own in windows)


@given(inputs())
def test_only_the_last_window_is_shorter_than_the_limit(case: Case) -> None:
    parts, limit, stride = case
    sizes = [len(kept) for kept, _ in cut_windows(parts, limit=limit, stride=stride)]
    assert all(size == limit for size in sizes[:-1])
    assert sizes[-1] <= limit


@given(inputs())
def test_neighbours_share_exactly_the_stride(case: Case) -> None:
    parts, limit, stride = case
    bodies = [kept[parts[kept] == parts.max()] for kept, _ in cut_windows(parts, limit=limit, stride=stride)]
    for left, right in itertools.pairwise(bodies):
        assert np.intersect1d(left, right).tolist() == left[len(left) - stride :].tolist() == right[:stride].tolist()
        # A window without new tokens would be a useless run.
        assert len(right) > stride


@given(inputs())
def test_all_other_tokens_are_in_every_window(case: Case) -> None:
    parts, limit, stride = case
    around = np.flatnonzero(parts != parts.max())
    for kept, _ in cut_windows(parts, limit=limit, stride=stride):
        assert np.isin(around, kept).all()
        assert (np.diff(kept) > 0).all()


@given(inputs())
def test_a_shared_token_counts_where_it_has_the_most_neighbours(case: Case) -> None:
    parts, limit, stride = case
    windows = cut_windows(parts, limit=limit, stride=stride)
    assume(2 * stride <= len(windows[0][0]) - np.count_nonzero(parts != parts.max()))
    bodies = [kept[parts[kept] == parts.max()].tolist() for kept, _ in windows]
    # Neighbours of a token on the side with fewer. The last window is left out: it ends where the text ends.
    margins = [
        {token: min(position, len(body) - 1 - position) for position, token in enumerate(body)} for body in bodies[:-1]
    ]
    for number, (kept, own) in enumerate(windows[:-1]):
        for token in kept[own].tolist():
            others = [margin[token] for margin in margins if token in margin]
            assert token not in margins[number] or margins[number][token] == max(others)


def test_windows_of_a_text() -> None:
    windows = cut_windows(sequences(10), limit=8, stride=3)
    assert [kept.tolist() for kept, _ in windows] == [
        [0, 1, 2, 3, 4, 5, 6, 11],
        [0, 4, 5, 6, 7, 8, 9, 11],
        [0, 7, 8, 9, 10, 11],
    ]
    assert [kept[own].tolist() for kept, own in windows] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]


def test_windows_of_a_pair_are_over_its_second_text() -> None:
    windows = cut_windows(sequences(2, 5), limit=8, stride=1)
    assert [kept.tolist() for kept, _ in windows] == [[0, 1, 2, 3, 4, 5, 6, 9], [0, 1, 2, 3, 6, 7, 8, 9]]
    assert [kept[own].tolist() for kept, own in windows] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]


def test_windows_with_stride_0_share_nothing() -> None:
    windows = cut_windows(sequences(10), limit=6, stride=0)
    assert [kept[1:-1].tolist() for kept, _ in windows] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert [own[1:-1].all() for _, own in windows] == [True] * 3


@pytest.mark.parametrize(("room", "stride"), [(1, 0), (3, 0), (4, 1), (62, 15), (511, 127), (512, 128), (2000, 128)])
def test_windows_share_a_quarter_and_at_most_128_tokens_by_default(room: int, stride: int) -> None:
    parts = sequences(5000)
    default, expected = (cut_windows(parts, limit=room + 2, stride=value) for value in (None, stride))
    assert [kept.tolist() for kept, _ in default] == [kept.tolist() for kept, _ in expected]
    assert [own.tolist() for _, own in default] == [own.tolist() for _, own in expected]


@pytest.mark.parametrize("stride", [0, 3, None])
@pytest.mark.parametrize("first", [13, 14, 40])
def test_a_first_text_that_leaves_no_room_is_refused(first: int, stride: int | None) -> None:
    with pytest.raises(InputTooLongError, match=r"0 of 16 tokens are left .* shorten the first text"):
        cut_windows(sequences(first, 50), limit=16, stride=stride)


def test_windows_must_be_longer_than_the_stride() -> None:
    with pytest.raises(InputTooLongError, match=r"8 of 16 tokens are left .* share 8"):
        cut_windows(sequences(5, 50), limit=16, stride=8)
    assert cut_windows(sequences(5, 50), limit=16, stride=7)


def test_the_error_has_no_negative_number() -> None:
    with pytest.raises(InputTooLongError) as raised:
        cut_windows(sequences(40, 50), limit=16, stride=None)
    assert "-" not in str(raised.value)


def batch_of(counts: list[int], *, limit: int = 16, stride: int = 4) -> TokenBatch:
    """Return a batch of texts with these numbers of tokens, in windows if they are over the limit.

    Ids count all tokens of all texts.
    """
    rows: list[tuple[int, Int64Array, BoolArray]] = []
    first = 0
    for text, count in enumerate(counts):
        parts = sequences(count)
        whole = np.arange(len(parts))
        cuts = [(whole, np.ones(len(parts), np.bool_))]
        if len(parts) > limit:
            cuts = cut_windows(parts, limit=limit, stride=stride)
        rows += [(text, first + kept, own) for kept, own in cuts]
        first += len(parts)
    ids = np.concatenate([kept for _, kept, _ in rows])
    windows = Windows(texts=np.array([text for text, _, _ in rows]), own=np.concatenate([own for *_, own in rows]))
    return TokenBatch(
        ids=ids,
        type_ids=ids % 2,
        cu_seqlens=np.cumsum([0, *(len(kept) for _, kept, _ in rows)]),
        truncated=np.zeros(len(rows), np.bool_),
        texts=[str(count) for count in counts],
        offsets=TokenOffsets(starts=ids + 1, ends=ids + 2, words=ids + 3, sequences=ids + 4),
        windows=windows,
    )


@given(texts, st.integers(0, 9))
def test_tokens_of_windows_become_the_tokens_of_their_texts(counts: list[int], stride: int) -> None:
    batch = batch_of(counts, stride=stride)
    # Values that do not count are wrong by a million.
    values = (batch.ids + np.where(batch.windows.own, 0, 1_000_000)).astype(np.float32)
    whole, (merged, columns) = merge_windows(batch, [values, np.stack([values, -values], 1)], tokenwise=True)
    lengths = [count + 2 for count in counts]
    assert batch.tokens_per_text.tolist() == whole.lengths.tolist() == lengths
    assert merged.tolist() == whole.ids.tolist() == list(range(sum(lengths)))
    assert columns.tolist() == [[token, -token] for token in whole.ids.tolist()]
    assert whole.type_ids.tolist() == (whole.ids % 2).tolist()
    assert [getattr(whole.offsets, name).tolist() for name in ("starts", "ends", "words", "sequences")] == [
        (whole.ids + more).tolist() for more in (1, 2, 3, 4)
    ]
    assert (whole.texts, whole.windows) == (batch.texts, None)
    assert whole.truncated.tolist() == batch.truncated_texts.tolist() == [False] * len(counts)


def weighted_means(batch: TokenBatch, values: FloatArray) -> FloatArray:
    """Return the expected means, computed one window at a time."""
    means = []
    for text in range(len(batch.texts)):
        total, weight = np.zeros(values.shape[1]), 0
        for row in np.flatnonzero(batch.windows.texts == text):
            own_tokens = int(batch.windows.own[batch.cu_seqlens[row] : batch.cu_seqlens[row + 1]].sum())
            total, weight = total + own_tokens * values[row].astype(np.float64), weight + own_tokens
        means.append(total / weight)
    return np.array(means)


@given(texts, st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_values_of_windows_become_a_mean_weighted_by_their_own_tokens(
    counts: list[int], stride: int, seed: int
) -> None:
    batch = batch_of(counts, stride=stride)
    values = np.random.default_rng(seed).normal(size=(len(batch), 3)).astype(np.float32)
    whole, (merged, doubled) = merge_windows(batch, [values, 2 * values], tokenwise=False)
    np.testing.assert_allclose(merged, weighted_means(batch, values), atol=1e-5)
    np.testing.assert_allclose(doubled, 2 * merged, atol=1e-5)
    assert merged.dtype == np.float32
    assert whole.lengths.tolist() == [count + 2 for count in counts]


@given(texts, st.integers(0, 2**32 - 1))
def test_normalized_means_have_length_1_and_the_direction_of_the_mean(counts: list[int], seed: int) -> None:
    batch = batch_of(counts)
    values = 1 + np.random.default_rng(seed).uniform(size=(len(batch), 3)).astype(np.float32)
    _, (merged,) = merge_windows(batch, [values], tokenwise=False, normalize=True)
    means = weighted_means(batch, values)
    np.testing.assert_allclose(merged, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_texts_with_and_without_windows_can_be_mixed() -> None:
    batch = batch_of([3, 20, 0, 14, 15])
    assert batch.windows.texts.tolist() == [0, 1, 1, 2, 3, 4, 4]
    values = np.arange(7, dtype=np.float32)[:, None]
    _, (merged,) = merge_windows(batch, [values], tokenwise=False)
    # 20 tokens and 2 special ones: 12 + 1 count in the first window, 8 + 1 in the second. 15 and 2: 12 + 1, then 3 + 1.
    assert merged[:, 0].tolist() == pytest.approx([0, (13 * 1 + 9 * 2) / 22, 3, 4, (13 * 5 + 4 * 6) / 17])


@pytest.mark.parametrize("tokenwise", [True, False])
def test_a_batch_without_windows_stays_as_it_is(tokenwise: bool) -> None:
    batch = batch_of([3, 5])
    batch = TokenBatch(ids=batch.ids, type_ids=batch.type_ids, cu_seqlens=batch.cu_seqlens, truncated=batch.truncated)
    values = np.ones((len(batch.ids) if tokenwise else 2, 3), np.float32)
    whole, (merged,) = merge_windows(batch, [values], tokenwise=tokenwise, normalize=True)
    assert whole is batch
    assert merged is values
