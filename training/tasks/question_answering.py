"""Extractive question answering: the place of an answer in its context, which is read in overlapping windows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers

from encort.runtime.common.answer_metrics import answer_f1, best_score, exact_match
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import LOCATED_ANSWERS
from encort.runtime.tasks.answers import answers
from encort.runtime.text.token_batch import TokenBatch
from encort.training.data.examples import Examples, Schema
from encort.training.data.sources import Source
from encort.training.features import token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask


class QuestionAnswering(TrainingTask):
    """The part of a context that answers a question."""

    name = "question-answering"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6, "batch_size": 16}
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
        spans = [
            _find_answer(batch, row, rows["starts"][text][0], len(rows["label"][text][0]))
            for row, text in enumerate(texts)
        ]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "start_positions": [first for first, _ in spans],
            "end_positions": [last for _, last in spans],
        }

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return F1 and exact match of the answers as they will be served; see `TrainingTask`."""
        batch = _tokenize_windows(rows[:], pretrained)
        is_token = np.arange(outputs[0].shape[1]) < batch.lengths[:, None]
        starts, ends = (array[is_token] for array in outputs[:2])
        best = answers(starts, ends, batch, n_best=1, null_threshold=0)
        predicted = [answer[0].text if answer else "" for answer in best]
        pairs = list(zip(predicted, rows["label"], strict=True))
        return Scores(
            metrics={
                name: float(np.mean([best_score(metric, answer, right) for answer, right in pairs]))
                for name, metric in (("f1", answer_f1), ("exact_match", exact_match))
            }
        )


def _tokenize_windows(rows: Mapping[str, Sequence[Any]], pretrained: Pretrained) -> TokenBatch:
    pairs = list(zip(rows["question"], rows["context"], strict=True))
    return pretrained.tokenizer(pairs, overflow="window", return_offsets=True, all_cores=True)


def _find_answer(batch: TokenBatch, row: int, start: int, size: int) -> tuple[int, int]:
    """Return the first and the last token of an answer in a window; (0, 0) if the window lacks a part of it.

    Args:
        batch: Windows, with the offsets of their tokens.
        row: Number of the window.
        start: Offset of the answer in its context.
        size: Number of its characters.
    """
    assert batch.offsets is not None
    tokens = slice(batch.cu_seqlens[row], batch.cu_seqlens[row + 1])
    in_context = batch.offsets.sequences[tokens] == 1
    starts, ends = batch.offsets.starts[tokens], batch.offsets.ends[tokens]
    first = np.flatnonzero(in_context & (starts <= start) & (start < ends))
    last = np.flatnonzero(in_context & (starts < start + size) & (start + size <= ends))
    return (int(first[0]), int(last[-1])) if len(first) and len(last) else (0, 0)
