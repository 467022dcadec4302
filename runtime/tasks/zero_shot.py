"""Zero-shot classification: a model of natural language inference says which labels a text entails."""

import re
import string
from collections.abc import Sequence

from encort.runtime.bundle.manifest import HeadInfo
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError, InputTypeError, WrongTaskError
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Classification
from encort.runtime.text.token_batch import TokenBatch

TEMPLATE = "This example is {}."
"""Hypothesis about a label, as in the pipeline of transformers."""


def entailment_columns(head: HeadInfo) -> list[int]:
    """Return the columns of contradiction and entailment, found by the names of the labels.

    Labels without names (`LABEL_0` and so on) are in the order of MNLI: contradiction is the first, entailment the
    last. A head without contradiction has another label for it, such as `not_entailment`: its first one, or
    the last if entailment is the first, as in the pipeline of transformers.

    Raises:
        WrongTaskError: There is no label for entailment.
    """
    names = [label.lower() for label in head.labels]
    entailment = next((column for column, name in enumerate(names) if name.startswith("entail")), None)
    if entailment is None and all(re.fullmatch(r"label_\d+", name) for name in names):
        entailment = len(names) - 1
    if entailment is None:
        raise WrongTaskError(
            "zero-shot classification needs a head of natural language inference, with a label that begins with "
            f"'entail'; the labels of head {head.name} are: {', '.join(head.labels)}"
        )
    other = len(names) - 1 if entailment == 0 else 0
    contradiction = next((column for column, name in enumerate(names) if name.startswith("contra")), other)
    return [contradiction, entailment]


def hypotheses(labels: Sequence[str], template: str) -> list[str]:
    """Return the hypothesis about each label.

    Raises:
        InputTypeError: The labels are not a list of str, or the template is not a str.
        InputError: There are no labels, or a label twice; or the template has not exactly one `{}`.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(name, str) for name in labels):
        raise InputTypeError('labels must be a list of str, such as ["travel", "cooking"]')
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"labels must be different, and at least one; got {list(labels)}")
    if not isinstance(template, str):
        raise InputTypeError(f"template must be a str, got {type(template).__name__}")
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        fields = []
    if fields != [""]:
        raise InputError(f"template must have {{}} once, where the label goes, such as {TEMPLATE!r}; got {template!r}")
    return [template.format(label) for label in labels]


def zero_shot(
    logits: FloatArray, columns: Sequence[int], labels: Sequence[str], batch: TokenBatch, *, multi_label: bool
) -> list[Classification]:
    """Return one `Classification` per text.

    Args:
        logits: `(pairs, outputs)` float32, of the pairs of each text with all labels, text after text.
        columns: Columns of contradiction and entailment.
        labels: The labels.
        batch: The pairs, one row each.
        multi_label: Whether each label is judged by itself: entailment against contradiction. If not, the entailments
            of all labels are compared with each other. A single label is always judged by itself.
    """
    judged = logits[:, columns].reshape(-1, len(labels), 2)
    scores = softmax(judged)[..., 1] if multi_label or len(labels) == 1 else softmax(judged[..., 1])
    lengths = batch.lengths.reshape(-1, len(labels)).max(axis=1)
    truncated = batch.truncated.reshape(-1, len(labels)).max(axis=1)
    return [
        Classification(
            label=labels[best],
            score=row[best],
            scores=dict(zip(labels, row, strict=True)),
            tokens=tokens,
            truncated=is_cut,
        )
        for best, row, tokens, is_cut in zip(
            scores.argmax(axis=1).tolist(), scores.tolist(), lengths.tolist(), truncated.tolist(), strict=True
        )
    ]
