"""Questions with their answers' places in a context, read in overlapping windows where it is long."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

from encort.runtime.tasks.answers import answers
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.windows import merge_windows
from encort.training.data.cells import RowError, read_cells, refuse_if, text_cell
from encort.training.data.examples import Column, Example, Examples, Schema
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.features import token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask


def _asked(values: Mapping[str, Any]) -> Example:
    cells = read_cells(values, question=text_cell, context=text_cell, label=answers_cell)
    texts, starts = cells["label"]
    starts = [start + len(text) - len(text.lstrip()) for text, start in zip(texts, starts, strict=True)]
    return {**cells, "label": [text.strip() for text in texts], "starts": starts}


def answers_cell(values: Mapping[str, Any], role: str) -> tuple[list[str], list[int]]:
    """Texts and where each starts in the context; where that is no text, its own cell tells.

    They are SQuAD's `text` and `answer_start`, or a text or texts with starts beside them.
    """
    value: Any = values.get(role)
    start = values.get("answer_start")
    if isinstance(value, dict):
        value, start = value.get("text"), value.get("answer_start")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError("answers is not a text, a list of texts, or text and answer_start as SQuAD has them")
    context = values.get("context")
    context = context if isinstance(context, str) else ""
    starts = [context.find(text) for text in texts] if start is None else _whole_numbers(start, len(texts))
    is_there = all(at >= 0 and context.startswith(text, at) for text, at in zip(texts, starts, strict=False))
    refuse_if(
        {
            "no answers": not texts,
            "an answer is empty": not all(text.strip() for text in texts),
            "answer_start is not a whole number for every answer": len(starts) < len(texts),
            f"an answer is not in its context{'' if start is None else ' at answer_start'}": (
                bool(context.strip()) and not is_there
            ),
        }
    )
    return texts, starts


def _whole_numbers(value: Any, count: int) -> list[int]:
    """So many; none where they are not that."""
    numbers = value if isinstance(value, list) else [value]
    try:
        return [int(number) for number, _ in zip(numbers, range(count), strict=True)]
    except (TypeError, ValueError, OverflowError):
        return []


class QuestionAnswering(TrainingTask):
    """The part of a context that answers a question."""

    name = "question-answering"
    metric = "f1"
    defaults: ClassVar[Mapping[str, Any]] = {"epochs": 6, "batch_size": 16}
    schema = Schema(
        columns=[
            Column(role="question", names=["question"]),
            Column(role="context", names=["context"]),
            Column(role="label", names=["answers", "answer"]),
            Column(role="answer_start", names=["answer_start"], optional=True),
        ],
        features=datasets.Features(
            {
                "question": datasets.Value("string"),
                "context": datasets.Value("string"),
                "label": datasets.List(datasets.Value("string")),
                "starts": datasets.List(datasets.Value("int32")),
            }
        ),
        example=_asked,
    )

    def check_lengths(self, rows: datasets.Dataset, source: Source, pretrained: Pretrained, problems: Problems) -> None:
        for number, question in enumerate(rows["question"], start=1):
            # A separator stands after the context.
            if question and int(pretrained.tokenizer([question]).lengths[0]) + 1 >= pretrained.max_length:
                problems.add_row(source, f"the question leaves no room in {pretrained.max_length} tokens", number)

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(transformers.AutoModelForQuestionAnswering, num_labels=2)

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        batch = _windows(rows, pretrained)
        texts = range(len(batch)) if batch.windows is None else batch.windows.texts
        places = [
            _place(batch, row, rows["starts"][text][0], len(rows["label"][text][0])) for row, text in enumerate(texts)
        ]
        return {
            **token_columns(batch, has_types=pretrained.has_token_types),
            "start_positions": [start for start, _ in places],
            "end_positions": [end for _, end in places],
        }

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        batch = _windows(rows[:], pretrained)
        counts = np.arange(found[0].shape[1]) < batch.lengths[:, None]
        whole, logits = merge_windows(batch, [array[counts] for array in found[:2]], tokenwise=True)
        given = [best[0].text if best else "" for best in answers(logits[0], logits[1], whole, n_best=1)]
        pairs = list(zip(given, rows["label"], strict=True))
        metrics = {"f1": compute_f1, "exact_match": compute_exact}
        return Scores(
            metrics={
                name: float(np.mean([max(measure(right, text) for right in texts) for text, texts in pairs]))
                for name, measure in metrics.items()
            }
        )


def _windows(rows: Mapping[str, Sequence[Any]], pretrained: Pretrained) -> TokenBatch:
    pairs = list(zip(rows["question"], rows["context"], strict=True))
    return pretrained.tokenizer(pairs, overflow="window", return_offsets=True, all_cores=True)


def _place(batch: TokenBatch, row: int, start: int, size: int) -> tuple[int, int]:
    """First and last token of the answer in a window; the first token of all, twice, where it is not in it whole."""
    assert batch.offsets is not None
    tokens = slice(batch.cu_seqlens[row], batch.cu_seqlens[row + 1])
    places = batch.offsets
    in_context = places.sequences[tokens] == 1
    starts, ends = places.starts[tokens], places.ends[tokens]
    first = np.flatnonzero(in_context & (starts <= start) & (start < ends))
    last = np.flatnonzero(in_context & (starts < start + size) & (start + size <= ends))
    return (int(first[0]), int(last[-1])) if len(first) and len(last) else (0, 0)
