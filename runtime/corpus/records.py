"""Results as the command line writes them: one record per input, with plain values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.aggregation import AggregationName
from encort.runtime.common.errors import InputError
from encort.runtime.common.token_lists import JoinedTokens
from encort.runtime.corpus.inputs import Record
from encort.runtime.model import Model
from encort.runtime.tasks.quantization import EmbeddingPrecision
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.token_batch import Text, TokenBatch


class Records(Protocol):
    """Makes the records of a command."""

    def tokenization(self, model: Model) -> dict[str, Any]:
        """Return the options of `Model.tokenize`, for what the user leaves open."""

    def join(self, model: Model, texts: Sequence[Text]) -> Sequence[Text]:
        """Return the texts; those of lists of tokens are joined as the head reads them."""

    def no_embeddings(self, model: Model) -> NDArray[Any]:
        """Return an array of no embeddings, which an .npy file without records holds."""

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecords:
    """Records of `encort embed`, each with a sentence embedding.

    Attributes:
        prompt: See `Model.tokenize`.
        dimensions: See `Model.embed`.
        precision: See `Model.embed`.
    """

    prompt: str | Prompt | None = None
    dimensions: int | None = None
    precision: EmbeddingPrecision = "float32"

    def tokenization(self, model: Model) -> dict[str, Any]:  # noqa: ARG002 - of the protocol
        """Return the options of `Model.tokenize`, for what the user leaves open."""
        return {"overflow": "truncate", "prompt": self.prompt}

    def join(self, model: Model, texts: Sequence[Text]) -> Sequence[Text]:  # noqa: ARG002 - of the protocol
        """Return the texts as they are."""
        return texts

    def no_embeddings(self, model: Model) -> NDArray[Any]:
        """Return an array of no embeddings.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            InputError: See `Model.embed`.
        """
        return model.embed([], prompt=self.prompt, dimensions=self.dimensions, precision=self.precision)

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text."""
        embeddings = model.embed(batch, dimensions=self.dimensions, precision=self.precision)
        return with_counts(batch, ({"embedding": embedding} for embedding in embeddings))


def rank_records(model: Model, query: str, documents: Sequence[Any], *, top_k: int | None) -> list[Record]:
    """Return one record per document, the best first; see `Model.rank`."""
    ranked = model.rank(query, documents, top_k=top_k)
    return [{**asdict(document), "text": documents[document.index]} for document in ranked]


@dataclass(frozen=True, kw_only=True)
class PredictionRecords:
    """Records of `encort predict`: of the named head, of the first head that fits the options, or embeddings.

    `OPTION_TASKS` has the tasks that each option is for.

    Attributes:
        head: Name of the head; None: the first one that fits the other options.
        all_scores: Write the score of every label.
        n_best: Most answers per question; None: one.
        top_k: Most words per mask token; None: five.
        threshold: Least probability of a label of a text that may have several; None: the bundle's threshold.
        null_threshold: See `Model.answer`.
        aggregation: See `Model.tag`.
        among: Tasks that the head may have, beside what the options are for.
    """

    head: str | None = None
    all_scores: bool = False
    n_best: int | None = None
    top_k: int | None = None
    threshold: float | None = None
    null_threshold: float | None = None
    aggregation: AggregationName | None = None
    among: tuple[Task, ...] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that all given options are for; none if nothing restricts them.

        Raises:
            InputError: The options are for different tasks.
        """
        values = {name: getattr(self, name) for name in OPTION_TASKS}
        given = {name: OPTION_TASKS[name] for name, value in values.items() if value is not None and value is not False}
        tasks = tuple(task for task in self.among or Task if all(task in tasks for tasks in given.values()))
        if not tasks:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{names} are for different tasks; give one of them")
        return tasks if given or self.among else ()

    def tokenization(self, model: Model) -> dict[str, Any]:
        """Return the options of `Model.tokenize`: contexts of questions are read in windows, and heads get no prompt.

        Raises:
            InputError: The options are for different tasks.
            WrongTaskError: The bundle has no such head.
        """
        head = self._head(model)
        if head is None:
            return EmbeddingRecords().tokenization(model)
        return {"overflow": "window" if head.task is Task.QUESTION_ANSWERING else "truncate", "prompt": ""}

    def join(self, model: Model, texts: Sequence[Text]) -> Sequence[Text]:
        """Return the texts; those of lists of tokens are joined as the texts were that the head was trained on."""
        head = self._head(model)
        kind = None if head is None else head.tokens
        return [text.joined_as(kind) if isinstance(text, JoinedTokens) else text for text in texts]

    def no_embeddings(self, model: Model) -> NDArray[Any]:
        """Return an array of no embeddings."""
        return EmbeddingRecords().no_embeddings(model) if self._head(model) is None else np.empty((0, 0), np.float32)

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text.

        Raises:
            InputError: The options are for different tasks.
            WrongTaskError: The bundle has no such head.
        """
        head = self._head(model)
        if head is None:
            return EmbeddingRecords().make(model, batch)
        return with_counts(batch, _RECORDS[head.task](model, batch, head, self))

    def _head(self, model: Model) -> HeadInfo | None:
        tasks = self.tasks
        return model.head(self.head, *tasks) if self.head is not None or tasks or model.manifest.heads else None


OPTION_TASKS: Mapping[str, tuple[Task, ...]] = {
    "all_scores": CLASSIFIERS,
    "n_best": (Task.QUESTION_ANSWERING,),
    "top_k": (Task.FILL_MASK,),
    "threshold": (Task.MULTI_LABEL_CLASSIFICATION,),
    "null_threshold": (Task.QUESTION_ANSWERING,),
    "aggregation": (Task.TOKEN_CLASSIFICATION,),
}
"""Tasks that an option of `PredictionRecords` is for."""


def with_counts(batch: TokenBatch, records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return records with the number of tokens of each text, and whether it was cut."""
    counts = zip(batch.tokens_per_text.tolist(), batch.truncated_texts.tolist(), strict=True)
    return [
        {**record, "tokens": tokens, "truncated": truncated}
        for record, (tokens, truncated) in zip(records, counts, strict=True)
    ]


def _classes(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionRecords) -> Iterable[Record]:
    for result in model.classify(batch, head=head.name):
        record: dict[str, Any] = {"label": result.label, "score": result.score}
        if head.task is Task.MULTI_LABEL_CLASSIFICATION:
            record = {"labels": result.above(options.threshold)}
        yield record | {"scores": result.scores} if options.all_scores else record


def _scores(model: Model, batch: TokenBatch, head: HeadInfo, _: PredictionRecords) -> Iterable[Record]:
    return ({"score": score} for score in model.score(batch, head=head.name).tolist())


def _spans(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionRecords) -> Iterable[Record]:
    have_words = [isinstance(text, JoinedWords) for text in batch.texts]
    if any(have_words) and not all(have_words):
        raise InputError("some inputs have words and others have a text: give all of them as `tokens`, or none")
    if any(have_words):
        words = model.tag_words(batch, aggregation=options.aggregation, head=head.name)
        return ({"tags": [w.tag for w in text], "scores": [w.score for w in text]} for text in words)
    tagged = model.tag(batch, aggregation=options.aggregation, head=head.name)
    return ({"spans": [asdict(span) for span in spans]} for spans in tagged)


def _answers(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionRecords) -> Iterable[Record]:
    for answers in model.answer(
        batch, n_best=options.n_best or 1, null_threshold=options.null_threshold, head=head.name
    ):
        yield {
            "answers": [asdict(answer) for answer in answers],
            "no_answer": answers.no_answer,
            "null_score": answers.null_score,
        }


def _words(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionRecords) -> Iterable[Record]:
    filled = model.fill(batch, top_k=5 if options.top_k is None else options.top_k, head=head.name)
    return ({"masks": [asdict(masked) for masked in text]} for text in filled)


_RECORDS: Mapping[Task, Callable[[Model, TokenBatch, HeadInfo, PredictionRecords], Iterable[Record]]] = {
    Task.TEXT_CLASSIFICATION: _classes,
    Task.MULTI_LABEL_CLASSIFICATION: _classes,
    Task.NEXT_SENTENCE_PREDICTION: _classes,
    Task.TEXT_REGRESSION: _scores,
    Task.TOKEN_CLASSIFICATION: _spans,
    Task.QUESTION_ANSWERING: _answers,
    Task.FILL_MASK: _words,
}
"""Records of each task, before the counts are added."""
