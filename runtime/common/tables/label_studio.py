"""The JSON export of Label Studio: tasks with their data and the annotations of people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from encort.runtime.common.tables.lines import Row

_SPANS = frozenset({"labels", "hypertextlabels"})
"""Types of results that mark characters."""


def is_label_studio(content: Any) -> bool:
    """Return whether JSON is a list of tasks, each an object with `data` and `annotations`."""
    return isinstance(content, list) and bool(content) and all(map(_is_task, content))


def label_studio_rows(tasks: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the data of each task, and the results of its first annotation that was not skipped.

    Results have the name of the control that made them, such as `label`: a list of spans, a list of choices, or a
    number. A task that was annotated without a span has an empty list; one without an annotation has no results.
    """
    spans = {result["from_name"] for task in tasks for result in _results(task) or () if result["type"] in _SPANS}
    for task in tasks:
        results = _results(task)
        row = dict(task["data"])
        if results is not None:
            row |= {name: [] for name in spans}
            for result in results:
                kind, name, value = result["type"], result["from_name"], result["value"]
                row[name] = [*row[name], value] if kind in _SPANS else value.get(kind)
        yield row


def _is_task(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("data"), dict) and isinstance(value.get("annotations"), list)
    )


def _results(task: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the results of the first annotation that was not skipped, without relations; None if there is none."""
    done = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    if not done:
        return None
    return [result for result in done[0]["result"] if {"from_name", "type", "value"} <= result.keys()]
