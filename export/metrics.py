"""The metric of each task, of a loaded bundle on labelled data, as a fraction; more is better.

Each function takes a model, inputs and the right answer of each input.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from encort.runtime.common.answer_metrics import score_answers
from encort.runtime.common.arrays import FloatArray
from encort.runtime.model import Model
from encort.runtime.text.token_batch import Text

SpanKey = tuple[str, int, int]
"""Label, start and end of a span."""


def _accuracy(model: Model, inputs: Sequence[Text], labels: Sequence[str]) -> float:
    results = model.classify(inputs)
    return float(np.mean([result.label == label for result, label in zip(results, labels, strict=True)]))


def _label_f1(model: Model, inputs: Sequence[Text], labels: Sequence[frozenset[str]]) -> float:
    return _micro_f1([set(result.above()) for result in model.classify(inputs)], labels)


def _span_f1(model: Model, inputs: Sequence[Text], labels: Sequence[frozenset[SpanKey]]) -> float:
    tagged = model.tag(inputs)
    return _micro_f1([{(span.label, span.start, span.end) for span in spans} for spans in tagged], labels)


def _micro_f1(predicted: Iterable[set[Any]], right: Iterable[frozenset[Any]]) -> float:
    pairs = list(zip(predicted, right, strict=True))
    hits, total = sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs)
    return 2 * hits / total if total else 1.0


def _spearman(model: Model, inputs: Sequence[Text], labels: Sequence[float]) -> float:
    return float(spearmanr(model.score(inputs), labels)[0])


def _cosine_spearman(model: Model, inputs: Sequence[tuple[str, str]], labels: Sequence[float]) -> float:
    first, second = _embed_pairs(model, inputs)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(spearmanr((first * second).sum(axis=1) / norms, labels)[0])


def _accuracy_at_1(model: Model, inputs: Sequence[tuple[str, str]], labels: Sequence[str]) -> float:
    """Return how often the nearest of all second texts is the own one, as training measures it."""
    first, second = _embed_pairs(model, inputs)
    directions = second / np.linalg.norm(second, axis=1, keepdims=True)
    nearest = [int((directions @ vector).argmax()) for vector in first]
    return float(np.mean([labels[best] == label for best, label in zip(nearest, labels, strict=True)]))


def _embed_pairs(model: Model, inputs: Sequence[tuple[str, str]]) -> tuple[FloatArray, FloatArray]:
    return model.embed([first for first, _ in inputs]), model.embed([second for _, second in inputs])


def _answer_f1(model: Model, inputs: Sequence[Text], labels: Sequence[Sequence[str]]) -> float:
    best = [answers[0].text if answers else "" for answers in model.answer(inputs)]
    return score_answers(best, labels)["f1"]


METRICS: Mapping[str, Callable[..., float]] = {
    "accuracy": _accuracy,
    "micro F1": _label_f1,
    "Spearman": _spearman,
    "Spearman of cosines": _cosine_spearman,
    "accuracy at 1": _accuracy_at_1,
    "span F1": _span_f1,
    "answer F1": _answer_f1,
}
"""Functions by the name of their metric, which a variant's certificate shows."""
