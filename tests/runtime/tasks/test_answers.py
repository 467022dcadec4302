"""Logits of start and end become answers: parts of the context, the most probable first, or none."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks import answers as tasks
from encort.runtime.tasks.results import Answers
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets, Windows, concatenate_batches

Offsets = tuple[int, int, int]
"""Start, end and sequence of a token."""

MAX_ANSWER_TOKENS = 30


def batch(*pairs: tuple[str, str]) -> TokenBatch:
    """Return a batch of pairs, one token per word: `[CLS] question [SEP] context [SEP]`."""
    rows: list[Offsets] = []
    lengths: list[int] = []
    for question, context in pairs:
        parts = [[(0, 0, -1)], _offsets(question, 0), [(0, 0, -1)], _offsets(context, 1), [(0, 0, -1)]]
        rows += [row for part in parts for row in part]
        lengths.append(sum(map(len, parts)))
    starts, ends, sequences = np.array(rows, np.int64).reshape(-1, 3).T
    return TokenBatch(
        ids=np.zeros_like(starts),
        type_ids=np.maximum(sequences, 0),
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=np.zeros(len(pairs), np.bool_),
        texts=pairs,
        offsets=TokenOffsets(starts=starts, ends=ends, words=np.zeros_like(starts), sequences=sequences),
    )


def _offsets(text: str, sequence: int) -> list[Offsets]:
    position = 0
    offsets: list[Offsets] = []
    for word in text.split(" ") if text else []:
        offsets.append((position, position + len(word), sequence))
        position += len(word) + 1
    return offsets


def answers(
    start: FloatArray, end: FloatArray, pairs: TokenBatch, *, n_best: int = 1, null_threshold: float = math.inf
) -> list[Answers]:
    """Return the answers; a question has none only if a test gives a threshold."""
    return tasks.answers(start, end, pairs, n_best=n_best, null_threshold=null_threshold)


def logits(size: int, **peaks: float) -> FloatArray:
    """Return zeros, with 5 at position 3 for `at_3=5`."""
    values = np.zeros(size, np.float32)
    for name, value in peaks.items():
        values[int(name.removeprefix("at_"))] = value
    return values


def test_an_answer_is_the_text_from_its_start_to_its_end() -> None:
    pairs = batch(("what is lost", "my bank card is lost"))  # tokens 1 to 3 are the question, 5 to 9 the context
    ((answer,),) = answers(logits(11, at_6=9), logits(11, at_7=9), pairs)
    assert (answer.text, answer.start, answer.end) == ("bank card", 3, 12)
    probability = np.exp(9) / (np.exp(9) + 5)  # of five words and [CLS]
    assert answer.score == pytest.approx(probability**2, rel=1e-5)


@pytest.mark.parametrize("position", [1, 2, 3, 4, 10], ids=["q", "q", "q", "sep", "last sep"])
def test_question_and_special_tokens_have_no_probability(position: int) -> None:
    pairs = batch(("what is lost", "my bank card is lost"))
    peaks: dict[str, float] = {"at_6": 3, f"at_{position}": 50}
    ((answer,),) = answers(logits(11, **peaks), logits(11, **peaks), pairs)
    assert answer.text == "bank"
    assert answer.score == pytest.approx((np.exp(3) / (np.exp(3) + 5)) ** 2, rel=1e-5)


def test_no_answer_ends_before_it_starts() -> None:
    pairs = batch(("q", "a b c d"))
    (results,) = answers(logits(8, at_6=4), logits(8, at_3=5), pairs, n_best=100)
    assert len(results) == 4 + 3 + 2 + 1
    assert all(answer.start < answer.end for answer in results)
    assert results[0].text == "a"


@pytest.mark.parametrize(("distance", "is_whole"), [(MAX_ANSWER_TOKENS - 1, True), (MAX_ANSWER_TOKENS, False)])
def test_an_answer_has_at_most_thirty_tokens(distance: int, is_whole: bool) -> None:
    pairs = batch(("q", " ".join("abcdefghijklmnopqrstuvwxyz" * 2)))
    start, end = logits(56, at_5=12), logits(56, **{f"at_{5 + distance}": 12})
    ((answer,),) = answers(start, end, pairs)
    assert (len(answer.text.split()) == distance + 1) is is_whole
    assert len(answer.text.split()) <= MAX_ANSWER_TOKENS


@pytest.mark.parametrize("n_best", [1, 2, 5, 6, 7, 1000])
def test_the_best_answers_are_different_and_in_order(n_best: int) -> None:
    start, end = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    (results,) = answers(start, end, batch(("q", "a b c")), n_best=n_best)
    assert len(results) == min(n_best, 6)
    assert len({(answer.start, answer.end) for answer in results}) == len(results)
    scores = [answer.score for answer in results]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_all_answers_equal_a_search_over_all_pairs_of_tokens(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = batch(*[(" ".join("q" * random.integers(0, 5)), " ".join("x" * random.integers(0, 45))) for _ in range(4)])
    start, end = random.normal(scale=4, size=(2, len(pairs.ids))).astype(np.float32)
    for index, results in enumerate(answers(start, end, pairs, n_best=10_000)):
        tokens = [
            token
            for token in range(pairs.cu_seqlens[index], pairs.cu_seqlens[index + 1])
            if pairs.offsets.sequences[token] == 1
        ]
        first_token = pairs.cu_seqlens[index]
        null_start, *starts = np.exp(start[[first_token, *tokens]].astype(np.float64))
        null_end, *ends = np.exp(end[[first_token, *tokens]].astype(np.float64))
        start_sum, end_sum = null_start + sum(starts), null_end + sum(ends)
        expected = {
            (2 * first, 2 * last + 1): starts[first] / start_sum * ends[last] / end_sum
            for first in range(len(tokens))
            for last in range(first, len(tokens))
            if last - first < MAX_ANSWER_TOKENS
        }
        assert {(answer.start, answer.end): answer.score for answer in results} == pytest.approx(expected, rel=1e-4)
        assert results.null_score == pytest.approx(null_start / start_sum * null_end / end_sum, rel=1e-4)
        best = [expected[answer.start, answer.end] for answer in results]
        np.testing.assert_allclose(best, sorted(expected.values(), reverse=True), rtol=1e-4)


def test_every_question_has_its_own_answers() -> None:
    pairs = batch(("q", "my card"), ("is it", "the pin"), ("q", ""))
    start = end = logits(17, at_3=9, at_11=9)
    first, second, third = answers(start, end, pairs)
    assert ([answer.text for answer in first], [answer.text for answer in second], third) == (["my"], ["pin"], [])


@pytest.mark.parametrize("context", ["", None], ids=["empty", "no questions"])
def test_an_empty_context_has_no_answers(context: str | None) -> None:
    pairs = batch() if context is None else batch(("what is lost", context))
    zeros = logits(len(pairs.ids))
    assert answers(zeros, zeros, pairs, n_best=3) == ([] if context is None else [[]])


@pytest.mark.parametrize(
    "context",
    ["😀 안녕하세요 👍🏽", "cafe\u0301 e\u0301\u0302 x", "a\u00a0b a\u200bb c"],
    ids=["emoji", "marks", "spaces"],
)
def test_offsets_count_characters(context: str) -> None:
    words = context.split(" ")
    (results,) = answers(logits(7), logits(7), batch(("q", context)), n_best=100)
    assert {answer.text for answer in results} == {" ".join(words[i:j]) for i in range(3) for j in range(i + 1, 4)}
    assert all(answer.text == context[answer.start : answer.end] for answer in results)


@pytest.mark.parametrize(
    ("context", "start", "end", "expected"),
    [
        ("it is Paris .", 5, 11, "Paris"),  # a token with the space before it
        ("it is गुरु .", 6, 9, "गुरु"),  # a tokenizer that drops marks
        ("it is ❤\ufe0f .", 6, 7, "❤\ufe0f"),
        ("it is 👩\u200d👧 .", 8, 9, "👩\u200d👧"),  # a part of an emoji
        ("it is x\r\n .", 6, 8, "x"),
    ],
)
def test_an_answer_is_whole_characters_without_white_space_around_it(
    context: str, start: int, end: int, expected: str
) -> None:
    pairs = batch(("q", context))
    assert pairs.offsets is not None
    pairs.offsets.starts[5], pairs.offsets.ends[5] = start, end
    ((answer,),) = answers(logits(8, at_5=9), logits(8, at_5=9), pairs)
    assert (answer.text, answer.start) == (expected, context.index(expected))


def test_answers_are_plain_json() -> None:
    ((answer,),) = answers(logits(5), logits(5), batch(("q", "a")))
    assert json.loads(json.dumps(dataclasses.asdict(answer))) == {
        "text": "a",
        "score": pytest.approx(0.25),
        "start": 0,
        "end": 1,
    }


def test_a_certain_end_before_a_certain_start_still_gives_an_answer() -> None:
    (results,) = answers(logits(7, at_5=120), logits(7, at_3=120), batch(("q", "a b c")))
    assert len(results) == 1


def test_several_tokens_of_one_character_give_an_answer_once() -> None:
    pairs = batch(("q", "😀 b"))
    # RoBERTa's tokenizer gives the bytes of an emoji the same offsets.
    pairs.offsets.starts[4], pairs.offsets.ends[4] = 0, 1
    (results,) = answers(logits(6), logits(6), pairs, n_best=10)
    assert len({(answer.start, answer.end) for answer in results}) == len(results)


def test_no_answer_is_empty() -> None:
    pairs = batch(("q", "a b"))
    pairs.offsets.ends[3] = pairs.offsets.starts[3]
    (results,) = answers(logits(6, at_3=5), logits(6, at_3=5), pairs, n_best=10)
    assert all(answer.text for answer in results)


@pytest.mark.parametrize(
    ("null", "threshold", "has_answer"),
    [
        (8.9, 0, True),
        (9.1, 0, False),
        (9.1, 0.3, True),
        (8.9, -0.3, False),
        (50, math.inf, True),
        (0, -math.inf, False),
        (50, 40.9, False),
        (50, 41.1, True),
    ],
)
def test_the_threshold_is_a_difference_of_logits(null: float, threshold: float, has_answer: bool) -> None:
    pairs = batch(("what is lost", "my bank card is lost"))
    # Half of each sum of logits is in the start, half in the end.
    start = end = logits(11, at_6=4.5, at_0=null / 2)
    (result,) = answers(start, end, pairs, n_best=3, null_threshold=threshold)
    assert (result.no_answer, len(result)) == ((False, 3) if has_answer else (True, 0))
    probability = np.exp(null / 2) / (np.exp(null / 2) + np.exp(4.5) + 4)
    assert result.null_score == pytest.approx(probability**2, rel=1e-5)


def test_a_null_score_that_is_almost_1_leaves_almost_nothing_for_answers() -> None:
    start = end = logits(11, at_0=200, at_6=100)
    ((answer,),) = answers(start, end, batch(("what is lost", "my bank card is lost")))
    assert (answer.text, answer.score) == ("bank", pytest.approx(np.exp(-200)))


def test_an_empty_context_certainly_has_no_answer() -> None:
    (result,) = answers(logits(4), logits(4), batch(("q", "")))
    assert (result.no_answer, result.null_score) == (True, 1.0)


def test_answers_keep_their_null_score_in_a_pickle() -> None:
    (result,) = answers(logits(5), logits(5), batch(("q", "a")), null_threshold=0)
    again = pickle.loads(pickle.dumps(result))
    assert (again, again.null_score, again.tokens, again.no_answer) == (result, result.null_score, 5, False)


def windows(*, own: list[list[int]]) -> TokenBatch:
    """Return two windows over `a b c d e f`, `[CLS] q [SEP] a b c d [SEP]` and the same with `c d e f`.

    Args:
        own: For each window, 1 for the words that count in it.
    """
    first, second = batch(("q", "a b c d")), batch(("q", "c d e f"))
    second.offsets.starts[3:7] += 4
    second.offsets.ends[3:7] += 4
    counts = [[1, 1, 1, *own[0], 0], [0, 0, 0, *own[1], 1]]
    own_tokens = np.concatenate(counts).astype(np.bool_)
    return dataclasses.replace(
        concatenate_batches([first, second]),
        texts=[("q", "a b c d e f")],
        windows=Windows(texts=np.zeros(2, np.int64), own=own_tokens),
    )


HALVES = [[1, 1, 1, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(("first", "second"), [(9, 0), (0, 9)])
def test_a_text_has_an_answer_if_one_of_its_windows_has_one(first: float, second: float) -> None:
    # The other window says clearly that it has no answer.
    peaks = {"at_0": 5 - first / 9 * 5, "at_3": first, "at_8": 5 - second / 9 * 5, "at_14": second}
    start = end = logits(16, **peaks)
    (result,) = answers(start, end, windows(own=HALVES), null_threshold=0)
    assert [answer.text for answer in result] == ["a" if first else "f"]
    assert result.null_score == pytest.approx(1 / (np.exp(9) + 4) ** 2, rel=1e-3)


def test_a_text_has_no_answer_if_no_window_has_one() -> None:
    # Logits of different windows have no common scale: the second window is the one that is more certain.
    start = end = logits(16, at_0=3, at_8=20, at_14=12)
    (result,) = answers(start, end, windows(own=HALVES), null_threshold=0)
    assert result.no_answer
    assert result.null_score == pytest.approx((np.exp(3) / (np.exp(3) + 4)) ** 2, rel=1e-4)


def test_scores_of_a_window_do_not_depend_on_the_level_of_its_logits() -> None:
    start, end = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)
    (expected,) = answers(start, end, windows(own=HALVES), n_best=100)
    start[8:] += 30
    end[8:] -= 7
    (result,) = answers(start, end, windows(own=HALVES), n_best=100)
    assert [answer.text for answer in result] == [answer.text for answer in expected]
    assert [answer.score for answer in result] == pytest.approx([answer.score for answer in expected], rel=1e-4)


def test_an_answer_between_two_windows_is_given_by_the_window_that_has_all_of_it() -> None:
    start, end = logits(16, at_11=9), logits(16, at_13=9)  # "c" and "e" in the second window
    (result,) = answers(start, end, windows(own=HALVES), null_threshold=0)
    assert [answer.text for answer in result] == ["c d e"]


def test_an_answer_that_both_windows_give_has_its_best_score_and_is_given_once() -> None:
    start, end = logits(16, at_5=2, at_11=5), logits(16, at_6=2, at_12=5)  # "c" and "d" in both windows
    (result,) = answers(start, end, windows(own=HALVES), n_best=100)
    assert len({(answer.start, answer.end) for answer in result}) == len(result)
    assert (result[0].text, result[0].score) == ("c d", pytest.approx((np.exp(5) / (np.exp(5) + 4)) ** 2, rel=1e-4))


def test_a_window_does_not_answer_with_tokens_that_count_elsewhere() -> None:
    start = end = logits(16, at_0=3, at_8=3, at_6=9)  # "d" in the first window, at its very end
    (result,) = answers(start, end, windows(own=HALVES), null_threshold=0)
    assert "d" not in [answer.text for answer in result]
