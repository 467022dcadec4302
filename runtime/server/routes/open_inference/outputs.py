"""The output tensors of a model: those of its embeddings and of the first head of each task."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from encort.runtime.server.models import ServedModel
from encort.runtime.server.ranking import tasks_of
from encort.runtime.serving.calls import rows_as_list
from encort.runtime.tasks.specs import CLASSIFIERS, Tasks
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.token_batch import Text

Values = NDArray[Any] | list[str]


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output tensor.

    Attributes:
        name: Its name.
        task: Name of the task that gives it; see `SPECS`.
        width: Values of a text; None: one number or text.
        is_text: Whether it has texts, and not numbers.
        values: Makes the tensor of the results of all texts.
    """

    name: str
    task: str
    width: int | None = None
    is_text: bool = False
    values: Callable[[Sequence[Any]], Values]

    def takes(self, text: Text) -> bool:
        """Return whether a text or pair has the output. Pairs have no spans, and only pairs have answers."""
        is_pair = isinstance(text, tuple)
        return not is_pair if self.task == "tag" else is_pair or self.task != "answer"

    def description(self) -> dict[str, Any]:
        """Return the tensor as the metadata of a model have it."""
        shape = [-1] if self.width is None else [-1, self.width]
        return {"name": self.name, "datatype": "BYTES" if self.is_text else "FP32", "shape": shape}


SPECS: dict[str, Callable[[Tasks, str | None], TaskSpec[Any]]] = {
    "embed": lambda tasks, prompt: rows_as_list(tasks.embed(prompt=prompt)),
    "classify": lambda tasks, _: tasks.classify(None),
    "score": lambda tasks, _: rows_as_list(tasks.score(None)),
    "tag": lambda tasks, _: tasks.tag(None),
    "answer": lambda tasks, _: tasks.answer(None),
}
"""Specs of the tasks by name, for a prompt."""


def outputs_of(served: ServedModel) -> list[Output]:
    """Return the outputs of a model. Those of its heads come before its embeddings."""
    tasks = served.service.tasks
    outputs: list[Output] = []
    for name in sorted(SPECS.keys() & tasks_of(served), key=_ORDER.index):
        if name == "embed":
            outputs.append(Output(name="embedding", task=name, width=tasks.dimensions(), values=np.stack))
        elif name == "classify":
            width = len(tasks.head(None, *CLASSIFIERS).labels)
            outputs.append(Output(name="label", task=name, is_text=True, values=lambda items: [i.label for i in items]))
            outputs.append(Output(name="scores", task=name, width=width, values=_scores))
        elif name == "score":
            outputs.append(Output(name="score", task=name, values=lambda items: np.array(items, np.float32)))
        else:
            outputs.append(Output(name=_SPANS[name], task=name, is_text=True, values=_as_json))
    return outputs


_SPANS = {"tag": "spans", "answer": "answers"}
_ORDER = ["classify", "score", "tag", "answer", "embed"]


def _scores(items: Sequence[Any]) -> Values:
    return np.array([list(item.scores.values()) for item in items], np.float32)


def _as_json(items: Sequence[Any]) -> list[str]:
    """Return the spans of each text as JSON."""
    return [orjson.dumps([asdict(span) for span in spans]).decode() for spans in items]
