"""Answers get the scores of the SQuAD metrics in transformers."""

import random

import pytest

from encort.runtime.common.answer_metrics import answer_f1, best_score, exact_match

PIECES = [
    "the",
    "The",
    "a",
    "an",
    "A",
    "card",
    "Card",
    "pin",
    "café",
    "다",
    "\u2019s",
    "-",
    "!",
    ".",
    ",",
    '"',
    "(",
    "_",
    "1",
]
SPACES = ["", "", " ", "  ", "\t", "\u00a0", "\n"]


def random_answer(source: random.Random) -> str:
    return "".join(source.choice(PIECES) + source.choice(SPACES) for _ in range(source.randrange(6)))


@pytest.mark.parametrize("seed", range(20))
def test_random_answers_get_the_scores_of_transformers(seed: int) -> None:
    # transformers 5 has no metrics any more; `make test-lowest` runs this.
    squad = pytest.importorskip("transformers.data.metrics.squad_metrics")
    source = random.Random(seed)
    pairs = [(random_answer(source), random_answer(source)) for _ in range(500)]
    for answer, right in pairs:
        assert answer_f1(answer, right) == pytest.approx(squad.compute_f1(right, answer), abs=1e-12), (answer, right)
        assert exact_match(answer, right) == squad.compute_exact(right, answer), (answer, right)
    assert 0 < sum(answer_f1(*pair) for pair in pairs) < len(pairs)


@pytest.mark.parametrize(
    ("answer", "right", "f1"),
    [
        ("Ann Lee", "Ann Lee", 1),
        ("the ann, lee!", "Ann Lee Kim", 0.8),
        ("the ann, lee!", "A Ann Lee", 1),
        ("Ann", "Ann Lee", 2 / 3),
        ("Ann Ann", "Ann Lee", 0.5),
        ("Bob", "Ann Lee", 0),
        ("", "", 1),
        ("Bob", "", 0),
        ("the", "a", 1),
    ],
)
def test_f1_counts_the_words_in_common(answer: str, right: str, f1: float) -> None:
    assert answer_f1(answer, right) == pytest.approx(f1)


def test_the_best_of_several_right_answers_counts() -> None:
    assert best_score(answer_f1, "Ann", ["Bob", "Ann Lee"]) == pytest.approx(2 / 3)
    assert best_score(exact_match, "Ann", ["Bob", "ann"]) == 1


def test_no_answer_is_right_for_an_unanswerable_question() -> None:
    assert best_score(answer_f1, "", []) == 1
    assert best_score(answer_f1, "Ann", []) == 0
