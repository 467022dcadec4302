"""Labelled data, and what a loaded bundle scores on it: the metric of each task, in percent, more is better."""

import functools
import math
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.corpora import text_of_tokens
from encort.runtime.common.errors import DatasetError, InputError
from encort.runtime.common.tables import Row, read_rows
from encort.runtime.model import Model
from encort.runtime.tasks.spans import Word, spans_of_tags
from encort.runtime.text.token_batch import Text

LEAST_EXAMPLES = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """Labelled examples of one task.

    Attributes:
        task: Of the head that they are for.
        metric: What is measured.
        inputs: Texts or pairs.
        labels: What is right for each: a label, labels, a number, spans or answers.
    """

    task: Task
    metric: str
    inputs: Sequence[Text]
    labels: Sequence[Any]

    @classmethod
    def read(cls, file: Path, head: HeadInfo | None) -> "Evaluation":
        """Read labelled data for a head; without one, pairs of texts with a similarity.

        | task | columns |
        |---|---|
        | classification | `text`, where it has two `text_pair`, and `label_text` or `label` |
        | multi-label | `text`, and `labels`, a list |
        | regression, embeddings | `text`, `text_pair`, and `score` or `label` |
        | token classification | `tokens` and `tags`, lists; or a .conll file |
        | question answering | `question`, `context` and `answers`; or SQuAD's .json |

        Raises:
            DatasetError: The file is not such a table, or has too few examples, or labels that the head lacks.
        """
        task = Task.FEATURE_EXTRACTION if head is None else head.task
        metric, read, _ = _TASKS[task]
        if head is not None and not head.tags_words:
            read = functools.partial(_tagged, characters=True)
        try:
            examples = [read(row, f"{file}, example {number}") for number, row in enumerate(read_rows(file), start=1)]
        except InputError as error:
            raise DatasetError(str(error)) from error
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{file} does not hold examples for {task}: {error}") from error
        if len(examples) < LEAST_EXAMPLES:
            raise DatasetError(f"{file} has {len(examples)} labelled examples; at least {LEAST_EXAMPLES} are needed")
        inputs, labels = zip(*examples, strict=True)
        evaluation = cls(task=task, metric=metric, inputs=inputs, labels=labels)
        if head is not None and task in _NAMES:
            _check_labels(file, evaluation, head)
        return evaluation

    def texts(self, count: int) -> list[Text]:
        """At most `count` inputs as they are served, evenly from all: for embeddings single texts, else as they are."""
        served: Sequence[Text] = self.inputs
        if self.task is Task.FEATURE_EXTRACTION:
            served = [text for pair in self.inputs for text in pair]
        return [served[index] for index in np.unique(np.linspace(0, len(served) - 1, count).astype(int))]

    def score(self, model: Model) -> float:
        """The metric of a bundle's first head, in percent.

        Raises:
            DatasetError: It is not defined, as a correlation with labels that are all alike.
        """
        _, _, measure = _TASKS[self.task]
        metric = 100 * measure(model, self.inputs, self.labels)
        if not math.isfinite(metric):
            raise DatasetError(f"{self.metric} of the labelled data is not defined: its labels are all alike")
        return metric


def _check_labels(file: Path, evaluation: Evaluation, head: HeadInfo) -> None:
    names = _NAMES[head.task]
    found = {name for label in evaluation.labels for name in names(label)}
    known = {Word(label, 1.0, 0, 0).label for label in head.labels} if names is _span_names else set(head.labels)
    if unknown := sorted(found - known):
        raise DatasetError(f"{file} has labels that the model lacks: {', '.join(unknown[:5])}")


def _cell(row: Row, place: str, *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(f"{place} has no {' or '.join(names)}; it has: {', '.join(map(str, row))}")


def _strings(row: Row, place: str, name: str) -> list[str]:
    values = _cell(row, place, name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{place}: {name} holds {values!r}, expected a list of texts")
    return values


def _text(row: Row, place: str) -> Text:
    text = str(_cell(row, place, "text"))
    return (text, str(row["text_pair"])) if row.get("text_pair") is not None else text


def _classified(row: Row, place: str) -> tuple[Text, str]:
    return _text(row, place), str(_cell(row, place, "label_text", "label"))


def _multi_labelled(row: Row, place: str) -> tuple[Text, frozenset[str]]:
    return _text(row, place), frozenset(_strings(row, place, "labels"))


def _scored(row: Row, place: str) -> tuple[Text, float]:
    value = _cell(row, place, "score", "label")
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{place}: the score is {value!r}, expected a number")
    return _text(row, place), score


def _paired(row: Row, place: str) -> tuple[Text, float]:
    _cell(row, place, "text_pair")
    return _scored(row, place)


def _tagged(row: Row, place: str, *, characters: bool = False) -> tuple[Text, frozenset[tuple[str, int, int]]]:
    tokens, tags = _strings(row, place, "tokens"), _strings(row, place, "tags")
    if len(tokens) != len(tags):
        raise InputError(f"{place} has {len(tokens)} tokens and {len(tags)} tags")
    text, starts = text_of_tokens(tokens, characters=characters)
    ends = [start + len(token) for start, token in zip(starts, tokens, strict=True)]
    return text, frozenset((span.label, span.start, span.end) for span in spans_of_tags(text, starts, ends, tags))


def _asked(row: Row, place: str) -> tuple[Text, list[str]]:
    answers = _cell(row, place, "answers")
    # SQuAD's own form, a list, or the only one.
    answers = answers if isinstance(answers, dict) else {"text": [answers] if isinstance(answers, str) else answers}
    return (str(_cell(row, place, "question")), str(_cell(row, place, "context"))), _strings(answers, place, "text")


def _accuracy(model: Model, inputs: Sequence[Text], labels: Sequence[str]) -> float:
    found = model.classify(inputs)
    return float(np.mean([result.label == label for result, label in zip(found, labels, strict=True)]))


def _label_f1(model: Model, inputs: Sequence[Text], labels: Sequence[frozenset[str]]) -> float:
    return _micro_f1([set(result.above()) for result in model.classify(inputs)], labels)


def _span_f1(model: Model, inputs: Sequence[Text], labels: Sequence[frozenset[tuple[str, int, int]]]) -> float:
    found = model.tag(inputs)
    return _micro_f1([{(span.label, span.start, span.end) for span in spans} for spans in found], labels)


def _micro_f1(found: Iterable[set[Any]], expected: Iterable[frozenset[Any]]) -> float:
    pairs = list(zip(found, expected, strict=True))
    right, total = sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs)
    return 2 * right / total if total else 1.0


def _spearman(model: Model, inputs: Sequence[Text], labels: Sequence[float]) -> float:
    return float(spearmanr(model.score(inputs), labels)[0])


def _similarity_spearman(model: Model, inputs: Sequence[tuple[str, str]], labels: Sequence[float]) -> float:
    first, second = (model.embed([pair[side] for pair in inputs]) for side in (0, 1))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(spearmanr((first * second).sum(axis=1) / norms, labels)[0])


def _answer_f1(model: Model, inputs: Sequence[Text], labels: Sequence[Sequence[str]]) -> float:
    """As SQuAD has it (Rajpurkar et al. 2016): words in common with the nearest of the right answers."""
    scores = []
    for found, expected in zip(model.answer(inputs), labels, strict=True):
        words = _answer_words(found[0].text if found else "")
        scores.append(max((_overlap(words, _answer_words(answer)) for answer in expected), default=float(not words)))
    return float(np.mean(scores))


def _overlap(found: list[str], expected: list[str]) -> float:
    if not found or not expected:
        return float(found == expected)
    common = sum((Counter(found) & Counter(expected)).values())
    return 2 * common / (len(found) + len(expected))


def _answer_words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def _span_names(spans: Iterable[tuple[str, int, int]]) -> Iterable[str]:
    return (label for label, _, _ in spans)


_NAMES: Mapping[Task, Callable[[Any], Iterable[str]]] = {
    Task.TEXT_CLASSIFICATION: lambda label: [label],
    Task.NEXT_SENTENCE_PREDICTION: lambda label: [label],
    Task.MULTI_LABEL_CLASSIFICATION: lambda labels: labels,
    Task.TOKEN_CLASSIFICATION: _span_names,
}
"""The names of labels in what is right for one example."""

_TASKS: Mapping[Task, tuple[str, Callable[[Row, str], tuple[Text, Any]], Callable[..., float]]] = {
    Task.FEATURE_EXTRACTION: ("Spearman of cosines", _paired, _similarity_spearman),
    Task.TEXT_CLASSIFICATION: ("accuracy", _classified, _accuracy),
    Task.NEXT_SENTENCE_PREDICTION: ("accuracy", _classified, _accuracy),
    Task.MULTI_LABEL_CLASSIFICATION: ("micro F1", _multi_labelled, _label_f1),
    Task.TEXT_REGRESSION: ("Spearman", _scored, _spearman),
    Task.TOKEN_CLASSIFICATION: ("span F1", _tagged, _span_f1),
    Task.QUESTION_ANSWERING: ("answer F1", _asked, _answer_f1),
}
"""Name of the metric, how an example is read, how it is measured."""
