"""Score answers against right ones, as SQuAD does (Rajpurkar et al. 2016)."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, right: str) -> float:
    """Return 1.0 if both have the same words, else 0.0; case, punctuation and English articles do not count."""
    return float(_words(answer) == _words(right))


def answer_f1(answer: str, right: str) -> float:
    """Return the F1 of the words that both have; case, punctuation and English articles do not count.

    >>> round(answer_f1("the card", "My card!"), 3)
    0.667
    """
    words, right_words = _words(answer), _words(right)
    if not words or not right_words:
        return float(words == right_words)
    common = sum((Counter(words) & Counter(right_words)).values())
    return 2 * common / (len(words) + len(right_words))


def best_score(metric: Callable[[str, str], float], answer: str, right_answers: Sequence[str]) -> float:
    """Return the best score against any of the right answers.

    Args:
        metric: `answer_f1` or `exact_match`.
        answer: Answer that was given; empty if there is none.
        right_answers: Right answers; none for an unanswerable question, which an empty answer is right for.
    """
    return max(metric(answer, right) for right in right_answers or [""])


def score_answers(answers: Sequence[str], right_answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the mean F1 and exact match over all questions, with the names of SQuAD's own script.

    If there are unanswerable questions, `HasAns_` and `NoAns_` begin the names of the means over the questions with and
    without an answer.

    Args:
        answers: Answer to each question; empty if there is none.
        right_answers: Right answers to each question; see `best_score`.
    """
    pairs = list(zip(answers, right_answers, strict=True))
    scores = _mean_scores(pairs)
    if not all(right for _, right in pairs):
        for name, has_answer in (("HasAns", True), ("NoAns", False)):
            part = _mean_scores([(answer, right) for answer, right in pairs if bool(right) is has_answer])
            scores |= {f"{name}_{metric}": value for metric, value in part.items()}
    return scores


def _mean_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    if not pairs:
        return {}
    return {
        name: sum(best_score(metric, answer, right) for answer, right in pairs) / len(pairs)
        for name, metric in (("f1", answer_f1), ("exact_match", exact_match))
    }


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
