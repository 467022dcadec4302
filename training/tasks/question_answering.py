"""Extractive question answering: the place of an answer in its context, which is read in overlapping windows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers

from encort.runtime.common.answer_metrics import answer_f1, best_score, score_answers
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import LOCATED_ANSWERS
from encort.runtime.tasks.answers import answers
from encort.runtime.tasks.results import Answers
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch
from encort.training.data.examples import Examples, Schema
from encort.training.data.sources import Source
from encort.training.features import token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(TrainingTask):
    """The part of a context that answers a question, or the finding that it does not.

    Attributes:
        null_threshold: Threshold of "no answer", see `Model.answer`. None: the one with the best F1 on the validation
            data.
    """

    null_threshold: float | None = None

    name = "question-answering"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6, "batch_size": 16}
    decides_on_validation = True
    schema = Schema(
        rows=LOCATED_ANSWERS,
        features=datasets.Features(
            {
                "question": datasets.Value("string"),
                "context": datasets.Value("string"),
                "label": datasets.List(datasets.Value("string")),
                "starts": datasets.List(datasets.Value("int32")),
            }
        ),
    )

    def check_lengths(self, rows: datasets.Dataset, source: Source, pretrained: Pretrained, problems: Problems) -> None:
        """Add the questions that leave no room for their context to the problems."""
        for number, question in enumerate(rows["question"], start=1):
            # A separator stands after the context.
            if question and int(pretrained.tokenizer([question]).lengths[0]) + 1 >= pretrained.max_length:
                problem = f"the question leaves no room in {pretrained.max_length} tokens"
                problems.add_row(source.name, number, problem)

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a start logit and an end logit per token."""
        return pretrained.network(transformers.AutoModelForQuestionAnswering, num_labels=2)

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs with `start_positions` and `end_positions`, one entry per window; see `TrainingTask`."""
        batch = _tokenize_windows(rows, pretrained)
        texts = range(len(batch)) if batch.windows is None else batch.windows.texts
        contexts = [Graphemes(context) for context in rows["context"]]
        right = [
            context.visible(starts[0], starts[0] + len(labels[0])) if labels else None
            for context, starts, labels in zip(contexts, rows["starts"], rows["label"], strict=True)
        ]
        spans = [_find_answer(batch, row, contexts[text], right[text]) for row, text in enumerate(texts)]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "start_positions": [first for first, _ in spans],
            "end_positions": [last for _, last in spans],
        }

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return F1 and exact match of the answers as they will be served; see `TrainingTask`.

        Without a threshold of its own, the task is scored with the one that is best for these rows.
        """
        best = _best_answers(outputs, rows, pretrained)
        threshold = best_threshold(best, rows["label"]) if self.null_threshold is None else self.null_threshold
        predicted = [answers[0].text if answers and answers.null_margin <= threshold else "" for answers in best]
        return Scores(metrics=score_answers(predicted, rows["label"]))

    def decide(
        self, outputs: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> "QuestionAnswering":
        """Return the task with the threshold that has the best F1 on the validation data; see `TrainingTask`."""
        if self.null_threshold is not None:
            return self
        return QuestionAnswering(null_threshold=best_threshold(_best_answers(outputs, rows, pretrained), rows["label"]))

    def save(self, network: Any, folder: Path) -> None:
        """Write the weights and settings of the checkpoint; `encort export` reads the threshold from them."""
        network.config.null_threshold = self.null_threshold
        super().save(network, folder)


def _best_answers(outputs: Any, rows: datasets.Dataset, pretrained: Pretrained) -> list[Answers]:
    """Return the best answer to each question, whatever its null score is."""
    batch = _tokenize_windows(rows[:], pretrained)
    is_token = np.arange(outputs[0].shape[1]) < batch.lengths[:, None]
    starts, ends = (array[is_token] for array in outputs[:2])
    return answers(starts, ends, batch, n_best=1, null_threshold=math.inf)


def best_threshold(best: Sequence[Answers], right_answers: Sequence[Sequence[str]]) -> float:
    """Return the threshold of "no answer" with the best F1, the one nearest to 0 of several.

    Args:
        best: The best answer to each question.
        right_answers: Right answers to each question; none if it has no answer.
    """
    gains = [
        (answer.null_margin, best_score(answer_f1, answer[0].text, right) - best_score(answer_f1, "", right))
        for answer, right in zip(best, right_answers, strict=True)
        if answer
    ]
    if not gains:
        return 0.0
    margins, gain = np.array(sorted(gains)).T
    # The questions with the smallest margins are answered.
    totals = np.cumsum([0, *gain]).round(9)
    between = [(left + right) / 2 for left, right in pairwise([margins[0] - 2, *np.unique(margins), margins[-1] + 2])]
    best_limit: float = max(
        (0.0, *between), key=lambda limit: (totals[np.searchsorted(margins, limit, side="right")], -abs(limit))
    )
    return float(best_limit)


def _tokenize_windows(rows: Mapping[str, Sequence[Any]], pretrained: Pretrained) -> TokenBatch:
    pairs = list(zip(rows["question"], rows["context"], strict=True))
    return pretrained.tokenizer(pairs, overflow="window", return_offsets=True, all_cores=True)


def _find_answer(batch: TokenBatch, row: int, context: Graphemes, answer: tuple[int, int] | None) -> tuple[int, int]:
    """Return the first and the last token of an answer in a window.

    (0, 0) stands for no answer: there is none, or the window lacks a part of it. As in serving, a token reaches to the
    end of its last character as readers see it: a tokenizer may drop marks.

    Args:
        batch: Windows, with the offsets of their tokens.
        row: Number of the window.
        context: Characters of the context.
        answer: Visible edges of the answer in its context; None if there is no answer.
    """
    if answer is None:
        return 0, 0
    assert batch.offsets is not None
    start, end = answer
    begin, stop = batch.cu_seqlens[row : row + 2]
    tokens = np.flatnonzero(batch.offsets.sequences[begin:stop] == 1)
    edges = context.visible_parts(batch.offsets.starts[begin + tokens], batch.offsets.ends[begin + tokens])
    first = tokens[(edges[:, 0] <= start) & (start < edges[:, 1])]
    last = tokens[(edges[:, 0] < end) & (end <= edges[:, 1])]
    return (int(first[0]), int(last[-1])) if len(first) and len(last) else (0, 0)
