"""Read the answers to the question of one row."""

from collections.abc import Mapping
from typing import Any

from encort.runtime.common.labelled_rows.cells import RowError, refuse_if

_TRUTHS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}


def answer_texts_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return the texts of the right answers without the white space around them; none for an unanswerable question.

    The cell holds SQuAD's `{"text": [...], "answer_start": [...]}` or its list of such objects with one answer each, a
    list of texts, or one text. A question is unanswerable if the list or the text is empty, or if `is_impossible` is
    true: SQuAD 2 then has plausible answers, which are wrong.
    """
    texts, _ = _split_answers(values, role)
    return [text.strip() for text in texts]


def answers_cell(values: Mapping[str, Any], role: str) -> list[tuple[str, int]]:
    """Return each right answer with its offset in the role `context`, without the white space around it.

    See `answer_texts_cell` for the forms of the cell, and for questions without an answer. The offsets are SQuAD's
    `answer_start`, in the cell or in a column of that role. Without offsets, the first occurrence of an answer is
    taken. If the context is no text, its own cell reports it.
    """
    texts, start = _split_answers(values, role)
    if not texts:
        return []
    context = values.get("context")
    context = context if isinstance(context, str) else ""
    starts = [context.find(text) for text in texts] if start is None else _read_whole_numbers(start, len(texts))
    is_there = all(at >= 0 and context.startswith(text, at) for text, at in zip(texts, starts, strict=False))
    refuse_if(
        {
            "an answer is empty": not all(text.strip() for text in texts),
            "answer_start is not a whole number for every answer": len(starts) < len(texts),
            f"an answer is not in its context{'' if start is None else ' at answer_start'}": (
                bool(context.strip()) and not is_there
            ),
        }
    )
    spaces = [len(text) - len(text.lstrip()) for text in texts]
    return [(text.strip(), at + space) for text, at, space in zip(texts, starts, spaces, strict=True)]


def _split_answers(values: Mapping[str, Any], role: str) -> tuple[list[str], Any]:
    """Return the texts, and their starts as the row has them: None, a value or a list."""
    texts: Any = values.get(role)
    start = values.get("answer_start")
    is_impossible = _read_truth(values, "is_impossible")
    if is_impossible:
        return [], None
    if isinstance(texts, list) and texts and all(isinstance(answer, dict) for answer in texts):
        texts = {name: [answer.get(name) for answer in texts] for name in ("text", "answer_start")}
    if isinstance(texts, dict):
        texts, start = texts.get("text"), texts.get("answer_start")
    if isinstance(texts, str):
        texts = [texts]
    if texts is None:
        raise RowError("no answers; an empty list, or is_impossible, says that the context has none")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError("answers is not a text, a list of texts, or text and answer_start as SQuAD has them")
    if any(texts):
        return texts, start
    if is_impossible is False:
        raise RowError("no answers, but is_impossible is false")
    return [], None


def _read_truth(values: Mapping[str, Any], role: str) -> bool | None:
    """Return whether a cell is true, as JSON, CSV or pandas write it; None if it is empty."""
    value = values.get(role)
    if value is None or value == "":
        return None
    name = str(value).strip().lower().removesuffix(".0")
    if name not in _TRUTHS:
        raise RowError(f"{role} is not true or false")
    return _TRUTHS[name]


def _read_whole_numbers(value: Any, count: int) -> list[int]:
    """Return that many whole numbers; none where the value is something else."""
    numbers = value if isinstance(value, list) else [value]
    try:
        return [int(number) for number, _ in zip(numbers, range(count), strict=True)]
    except (TypeError, ValueError, OverflowError):
        return []
