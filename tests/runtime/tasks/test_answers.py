"""Start and end logits become answers: parts of the context, the most probable first."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from encort.runtime.tasks.answers import answers
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets

LONGEST = 30


def batch(*pairs):
    """Pairs of texts whose words are one token each: `[CLS] question [SEP] context [SEP]`."""
    rows, lengths = [], []
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


def _offsets(text, sequence):
    position, places = 0, []
    for word in text.split(" ") if text else []:
        places.append((position, position + len(word), sequence))
        position += len(word) + 1
    return places


def logits(size, **peaks):
    """Zeros, but for `at_3=5`."""
    values = np.zeros(size, np.float32)
    for name, value in peaks.items():
        values[int(name.removeprefix("at_"))] = value
    return values


def test_an_answer_reaches_from_its_start_to_its_end():
    pairs = batch(("what is lost", "my bank card is lost"))  # 1..3 question, 5..9 context
    ((answer,),) = answers(logits(11, at_6=9), logits(11, at_7=9), pairs, n_best=1)
    assert (answer.text, answer.start, answer.end) == ("bank card", 3, 12)
    probability = np.exp(9) / (np.exp(9) + 4)
    assert answer.score == pytest.approx(probability**2, rel=1e-5)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 10], ids=["cls", "q", "q", "q", "sep", "last sep"])
def test_question_and_special_tokens_are_no_answer_and_count_nothing(place):
    pairs = batch(("what is lost", "my bank card is lost"))
    peaks = {"at_6": 3, f"at_{place}": 50}
    ((answer,),) = answers(logits(11, **peaks), logits(11, **peaks), pairs, n_best=1)
    assert answer.text == "bank"
    assert answer.score == pytest.approx((np.exp(3) / (np.exp(3) + 4)) ** 2, rel=1e-5)


def test_no_answer_ends_before_it_starts():
    pairs = batch(("q", "a b c d"))
    ((*found,),) = answers(logits(8, at_6=4), logits(8, at_3=5), pairs, n_best=100)
    assert len(found) == 4 + 3 + 2 + 1
    assert all(answer.start < answer.end for answer in found)
    assert found[0].text == "a"


@pytest.mark.parametrize(("distance", "is_found"), [(LONGEST - 1, True), (LONGEST, False)])
def test_an_answer_has_at_most_thirty_tokens(distance, is_found):
    pairs = batch(("q", " ".join("abcdefghijklmnopqrstuvwxyz" * 2)))
    start, end = logits(56, at_5=12), logits(56, **{f"at_{5 + distance}": 12})
    ((answer,),) = answers(start, end, pairs, n_best=1)
    assert (len(answer.text.split()) == distance + 1) is is_found
    assert len(answer.text.split()) <= LONGEST


@pytest.mark.parametrize("n_best", [1, 2, 5, 6, 7, 1000])
def test_the_best_are_different_and_in_order(n_best):
    start, end = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    (found,) = answers(start, end, batch(("q", "a b c")), n_best=n_best)
    assert len(found) == min(n_best, 6)
    assert len({(answer.start, answer.end) for answer in found}) == len(found)
    scores = [answer.score for answer in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_every_answer_is_what_trying_all_of_them_gives(seed):
    random = np.random.default_rng(seed)
    pairs = batch(*[(" ".join("q" * random.integers(0, 5)), " ".join("x" * random.integers(0, 45))) for _ in range(4)])
    start, end = random.normal(scale=4, size=(2, len(pairs.ids))).astype(np.float32)
    for index, found in enumerate(answers(start, end, pairs, n_best=10_000)):
        tokens = [
            token
            for token in range(pairs.cu_seqlens[index], pairs.cu_seqlens[index + 1])
            if pairs.offsets.sequences[token] == 1
        ]
        starts = np.exp(start[tokens].astype(np.float64))
        ends = np.exp(end[tokens].astype(np.float64))
        wanted = {
            (2 * first, 2 * last + 1): starts[first] / starts.sum() * ends[last] / ends.sum()
            for first in range(len(tokens))
            for last in range(first, len(tokens))
            if last - first < LONGEST
        }
        assert {(answer.start, answer.end): answer.score for answer in found} == pytest.approx(wanted, rel=1e-4)
        best = [wanted[answer.start, answer.end] for answer in found]
        np.testing.assert_allclose(best, sorted(wanted.values(), reverse=True), rtol=1e-4)


def test_each_question_has_its_own_answers():
    pairs = batch(("q", "my card"), ("is it", "the pin"), ("q", ""))
    start = end = logits(17, at_3=9, at_11=9)
    first, second, third = answers(start, end, pairs, n_best=1)
    assert ([answer.text for answer in first], [answer.text for answer in second], third) == (["my"], ["pin"], [])


@pytest.mark.parametrize("context", ["", None], ids=["empty", "no questions"])
def test_an_empty_context_has_no_answers(context):
    pairs = batch() if context is None else batch(("what is lost", context))
    zeros = logits(len(pairs.ids))
    assert answers(zeros, zeros, pairs, n_best=3) == ([] if context is None else [[]])


@pytest.mark.parametrize(
    "context",
    ["😀 안녕하세요 👍🏽", "cafe\u0301 e\u0301\u0302 x", "a\u00a0b \u200b c"],
    ids=["emoji", "marks", "spaces"],
)
def test_the_text_is_cut_by_characters(context):
    words = context.split(" ")
    (found,) = answers(logits(7), logits(7), batch(("q", context)), n_best=100)
    assert {answer.text for answer in found} == {" ".join(words[i:j]) for i in range(3) for j in range(i + 1, 4)}
    assert all(answer.text == context[answer.start : answer.end] for answer in found)


def test_answers_are_plain_json():
    ((answer,),) = answers(logits(5), logits(5), batch(("q", "a")), n_best=1)
    assert json.loads(json.dumps(asdict(answer))) == {"text": "a", "score": 1.0, "start": 0, "end": 1}


def test_a_very_sure_end_before_a_very_sure_start_still_leaves_an_answer():
    ((*found,),) = answers(logits(7, at_5=120), logits(7, at_3=120), batch(("q", "a b c")), n_best=1)
    assert len(found) == 1


def test_tokens_of_one_character_give_no_answer_twice():
    pairs = batch(("q", "😀 b"))
    # As RoBERTa's tokenizer places the bytes of an emoji.
    pairs.offsets.starts[4], pairs.offsets.ends[4] = 0, 1
    (found,) = answers(logits(6), logits(6), pairs, n_best=10)
    assert len({(answer.start, answer.end) for answer in found}) == len(found)


def test_no_answer_is_empty():
    pairs = batch(("q", "a b"))
    pairs.offsets.ends[3] = pairs.offsets.starts[3]
    (found,) = answers(logits(6, at_3=5), logits(6, at_3=5), pairs, n_best=10)
    assert all(answer.text for answer in found)
