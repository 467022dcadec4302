"""Read labelled data of one task, and score a loaded bundle on it.

Rows are read by the parser that training uses, `runtime/common/labelled_rows`: every file that can be trained on can be
evaluated with the same options.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encort.export.metrics import METRICS, SpanKey
from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.errors import DatasetError, InputError
from encort.runtime.common.labelled_rows.cells import RowError
from encort.runtime.common.labelled_rows.columns import Example, RowSchema, check_roles, find_columns, values_by_role
from encort.runtime.common.labelled_rows.labels import FOLLOWS
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import (
    ANSWER_TEXTS,
    MULTI_LABEL_CLASSIFICATION,
    NEXT_SENTENCE,
    SENTENCE_PAIRS,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    find_tagging,
    token_classification,
)
from encort.runtime.common.tables.rows import read_column_names, read_rows
from encort.runtime.common.tag_schemes import TagScheme, TagSchemeError
from encort.runtime.common.token_lists import TokenKind
from encort.runtime.model import Model
from encort.runtime.tasks.spans import spans_of_tags
from encort.runtime.text.token_batch import Text

MIN_EXAMPLES = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """Labelled examples of one task.

    Attributes:
        task: Task of the head that they are for.
        metric: Name of the metric; a key of `METRICS`.
        inputs: Texts or pairs.
        labels: Right answer of each input, in the form that the metric takes.
    """

    task: Task
    metric: str
    inputs: Sequence[Text]
    labels: Sequence[Any]

    @classmethod
    def read(
        cls,
        file: Path,
        head: HeadInfo | None,
        *,
        columns: Mapping[str, str] | None = None,
        header: Sequence[str] | None = None,
    ) -> "Evaluation":
        """Read labelled data for a head; without one, pairs of texts for sentence embeddings.

        | task | roles, and the names that their columns have by convention |
        |---|---|
        | classification | text, text_pair if there is a second text, label: `label_text` or `label` |
        | multi-label | text, text_pair, label: `labels` or `label`, a list or names with bars; or a column per label |
        | regression | text, text_pair, label: `score` or `label` |
        | next sentence | text, text_pair, label: `label`, which is 1 or `is_next`, 0 or `not_next`, -1 if unknown |
        | embeddings | text, text_pair, label: `score` or `label`; without it, all pairs are alike |
        | token classification | tokens: `tokens` or `words`, label: `tags`, `ner_tags` or `labels`; or a .conll file |
        | | or text, label: `labels`, `label`, `spans` or `entities`, which are spans of characters |
        | question answering | question, context, label: `answers` or `answer`; or SQuAD's .json |

        Args:
            file: A file that `read_rows` can read.
            head: Head that the data is for.
            columns: Names of columns by role, such as `{"text": "message"}`, in place of the conventions.
            header: Names of the columns, for a .csv or .tsv file that does not begin with them.

        Raises:
            DatasetError: The file cannot be used; everything that is wrong with its rows is listed.
        """
        kind, problems = _kind_of(head), Problems(use="evaluated", option="--evaluation-column")
        try:
            examples = _read_examples(file, kind, problems, asked=columns or {}, header=header)
        except InputError as error:
            raise DatasetError(str(error)) from error
        if head is not None and head.task is Task.TOKEN_CLASSIFICATION:
            examples = _with_spans(file, examples, head, problems)
        if kind is _SCORED_PAIRS and examples and examples[0]["label"] is None:
            kind = _ALIKE_PAIRS
        labelled = [(_input_of(example), kind.label(example)) for example in examples]
        known = [(text, label) for text, label in labelled if label is not None]
        if head is not None:
            _check_labels(file, {name for _, label in known for name in kind.names(label)}, head, problems)
        problems.check()
        if len(known) < MIN_EXAMPLES:
            raise DatasetError(f"{file} has {len(known)} labelled examples; at least {MIN_EXAMPLES} are needed")
        inputs, labels = zip(*known, strict=True)
        return cls(
            task=Task.FEATURE_EXTRACTION if head is None else head.task,
            metric=kind.metric,
            inputs=inputs,
            labels=labels,
        )

    def texts(self, count: int) -> list[Text]:
        """Return at most `count` inputs, evenly from all, as they are served: single texts for embeddings."""
        served: Sequence[Text] = self.inputs
        if self.task is Task.FEATURE_EXTRACTION:
            served = [text for pair in self.inputs for text in pair]
        return [served[index] for index in np.unique(np.linspace(0, len(served) - 1, count).astype(int))]

    def score(self, model: Model) -> float:
        """Return the metric of a bundle's first head, in percent.

        Raises:
            DatasetError: The metric is not defined, such as a correlation with labels that are all alike.
        """
        metric = 100 * METRICS[self.metric](model, self.inputs, self.labels)
        if not math.isfinite(metric):
            raise DatasetError(f"{self.metric} of the labelled data is not defined: its labels are all alike")
        return metric


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of labelled data: its rows and its metric.

    Attributes:
        metric: Name of the metric.
        schema: Rows of the file.
        label: Right answer of an example, in the form that the metric takes; None if it is unknown.
        names: Names of labels in a right answer, which the head must have.
        finds_tokens: Whether the file decides what its lists of tokens hold, because the head does not know it.
    """

    metric: str
    schema: RowSchema
    label: Callable[[Example], Any] = operator.itemgetter("label")
    names: Callable[[Any], Iterable[str]] = lambda _: ()
    finds_tokens: bool = False


def _kind_of(head: HeadInfo | None) -> _Kind:
    if head is None:
        return _SCORED_PAIRS
    if head.task is Task.TOKEN_CLASSIFICATION:
        return _Kind(
            metric="span F1",
            schema=token_classification(head.tokens or TokenKind.WORDS),
            names=lambda spans: (span[0] for span in spans),
            # Such a head tags characters, or words and was trained elsewhere.
            finds_tokens=head.tokens is None and head.aggregation is Aggregation.SIMPLE,
        )
    if head.task is Task.NEXT_SENTENCE_PREDICTION:
        names = {FOLLOWS[label.lower()]: label for label in head.labels if label.lower() in FOLLOWS}
        if {0, 1} <= names.keys():
            return _Kind(metric="accuracy", schema=NEXT_SENTENCE, label=lambda example: names.get(example["label"]))
    return _KINDS[head.task]


def _read_examples(
    file: Path,
    kind: _Kind,
    problems: Problems,
    *,
    asked: Mapping[str, str],
    header: Sequence[str] | None,
) -> list[Example]:
    """Return the examples of the rows that are right; add what is wrong with the others to the problems.

    Raises:
        InputError: The file cannot be read.
    """
    schema = kind.schema
    check_roles(schema, asked, problems)
    names = find_columns(str(file), read_column_names(file, header=header), schema, problems, asked=asked)
    if names is None:
        return []
    if kind.finds_tokens:
        tagging = find_tagging(values_by_role(row, names) for row in read_rows(file, header=header))
        schema = token_classification(tagging.tokens or TokenKind.WORDS)
    examples = []
    for number, row in enumerate(read_rows(file, header=header), start=1):
        values = values_by_role(row, names)
        if values.get("text_pair") is None:  # a row may be a single text where others are pairs
            values.pop("text_pair", None)
        try:
            examples.append(schema.parse(values))
        except RowError as error:
            problems.add_row(str(file), number, *error.args)
    return examples


def _check_labels(file: Path, names: set[str], head: HeadInfo, problems: Problems) -> None:
    """Add the labels that the head lacks to the problems."""
    labels = set(head.labels)
    if head.task is Task.TOKEN_CLASSIFICATION:
        labels = TagScheme(head.labels).labels
    if unknown := sorted(names - labels):
        problems.add(f"{file} has labels that the model lacks: {', '.join(unknown[:5])}")


def _input_of(example: Example) -> Text:
    if "question" in example:
        return example["question"], example["context"]
    pair = example.get("text_pair")
    return example["text"] if pair is None else (example["text"], pair)


def _with_spans(file: Path, examples: Sequence[Example], head: HeadInfo, problems: Problems) -> list[Example]:
    """Return the examples with spans in place of tags; none if the tags are of no known scheme."""
    try:
        scheme = _find_scheme(sorted({tag for example in examples for tag in example["label"]}), head)
    except TagSchemeError as error:
        problems.add(f"{file}: {error}")
        return []
    return [{**example, "label": _spans_of(example, scheme)} for example in examples]


def _find_scheme(tags: Sequence[str], head: HeadInfo) -> TagScheme:
    """Return the scheme of some tags. A file may have few tags of the head's scheme, or tags of another scheme."""
    try:
        return TagScheme([*tags, *head.labels])
    except TagSchemeError:
        return TagScheme(tags)


def _spans_of(example: Example, scheme: TagScheme) -> frozenset[SpanKey]:
    spans = spans_of_tags(example["text"], example["starts"], example["ends"], example["label"], scheme)
    return frozenset((span.label, span.start, span.end) for span in spans)


_SCORED_PAIRS = _Kind(metric="Spearman of cosines", schema=SENTENCE_PAIRS)
_ALIKE_PAIRS = _Kind(metric="accuracy at 1", schema=SENTENCE_PAIRS, label=operator.itemgetter("text_pair"))

_CLASSES = _Kind(metric="accuracy", schema=TEXT_CLASSIFICATION, names=lambda label: [label])
_KINDS: Mapping[Task, _Kind] = {
    Task.TEXT_CLASSIFICATION: _CLASSES,
    # For a head whose labels do not say which of them means that the second text follows: its own names.
    Task.NEXT_SENTENCE_PREDICTION: _CLASSES,
    Task.MULTI_LABEL_CLASSIFICATION: _Kind(
        metric="micro F1",
        schema=MULTI_LABEL_CLASSIFICATION,
        label=lambda example: frozenset(example["label"]),
        names=lambda labels: labels,
    ),
    Task.TEXT_REGRESSION: _Kind(metric="Spearman", schema=TEXT_REGRESSION),
    Task.QUESTION_ANSWERING: _Kind(metric="answer F1", schema=ANSWER_TEXTS),
}
