"""Results as the command line writes them: one record per input, with plain values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.cli.writers import Record
from encort.runtime.common.aggregation import AggregationName
from encort.runtime.common.errors import InputError
from encort.runtime.common.token_lists import JoinedTokens
from encort.runtime.model import Model
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.windows import Overflow


def embedding_records(model: Model, batch: TokenBatch) -> list[Record]:
    """Return one record with the sentence embedding per text."""
    return _with_counts(batch, ({"embedding": embedding} for embedding in model.embed(batch)))


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Options of `encort predict` about the head; `OPTION_TASKS` has the tasks that each is for.

    Attributes:
        head: Name of the head; None: the first one that fits the other options.
        all_scores: Write the score of every label.
        n_best: Most answers per question; None: one.
        threshold: Least probability of a label of a text that may have several; None: the bundle's threshold.
        null_threshold: See `Model.answer`.
        aggregation: See `Model.tag`.
    """

    head: str | None = None
    all_scores: bool = False
    n_best: int | None = None
    threshold: float | None = None
    null_threshold: float | None = None
    aggregation: AggregationName | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that all given options are for; none if no option restricts them.

        Raises:
            InputError: The options are for different tasks.
        """
        values = {name: getattr(self, name) for name in OPTION_TASKS}
        given = {name: OPTION_TASKS[name] for name, value in values.items() if value is not None and value is not False}
        tasks = tuple(task for task in Task if all(task in tasks for tasks in given.values()))
        if not tasks:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{names} are for different tasks; give one of them")
        return tasks if given else ()


OPTION_TASKS: Mapping[str, tuple[Task, ...]] = {
    "all_scores": CLASSIFIERS,
    "n_best": (Task.QUESTION_ANSWERING,),
    "threshold": (Task.MULTI_LABEL_CLASSIFICATION,),
    "null_threshold": (Task.QUESTION_ANSWERING,),
    "aggregation": (Task.TOKEN_CLASSIFICATION,),
}
"""Tasks that an option of `PredictionOptions` is for."""


def prediction_records(model: Model, batch: TokenBatch, options: PredictionOptions) -> list[Record]:
    """Return one record per text: of the named head, of the first head that fits the options, or embeddings.

    Raises:
        InputError: The options are for different tasks.
        WrongTaskError: The bundle has no such head.
    """
    chosen = _chosen_head(model, options)
    if chosen is None:
        return embedding_records(model, batch)
    return _with_counts(batch, _RECORDS[chosen.task](model, batch, chosen, options))


def join_texts(model: Model, texts: Sequence[Text], options: PredictionOptions) -> list[Text]:
    """Return the texts; those of lists of tokens are joined as the texts were that the head was trained on."""
    chosen = _chosen_head(model, options)
    kind = None if chosen is None else chosen.tokens
    return [text.joined_as(kind) if isinstance(text, JoinedTokens) else text for text in texts]


def default_overflow(model: Model, options: PredictionOptions) -> Overflow:
    """Return the policy for inputs over the limit, if the user gives none: contexts of questions are read in windows.

    Raises:
        InputError: See `prediction_records`.
        WrongTaskError: See `prediction_records`.
    """
    chosen = _chosen_head(model, options)
    return "window" if chosen is not None and chosen.task is Task.QUESTION_ANSWERING else "truncate"


def _chosen_head(model: Model, options: PredictionOptions) -> HeadInfo | None:
    tasks = options.tasks
    return model.head(options.head, *tasks) if options.head is not None or tasks or model.manifest.heads else None


def _with_counts(batch: TokenBatch, records: Iterable[Mapping[str, Any]]) -> list[Record]:
    counts = zip(batch.tokens_per_text.tolist(), batch.truncated_texts.tolist(), strict=True)
    return [
        {**record, "tokens": tokens, "truncated": truncated}
        for record, (tokens, truncated) in zip(records, counts, strict=True)
    ]


def _classes(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionOptions) -> Iterable[Record]:
    for result in model.classify(batch, head=head.name):
        record: dict[str, Any] = {"label": result.label, "score": result.score}
        if head.task is Task.MULTI_LABEL_CLASSIFICATION:
            record = {"labels": result.above(options.threshold)}
        yield record | {"scores": result.scores} if options.all_scores else record


def _scores(model: Model, batch: TokenBatch, head: HeadInfo, _: PredictionOptions) -> Iterable[Record]:
    return ({"score": score} for score in model.score(batch, head=head.name).tolist())


def _spans(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionOptions) -> Iterable[Record]:
    have_words = [isinstance(text, JoinedWords) for text in batch.texts]
    if any(have_words) and not all(have_words):
        raise InputError("some inputs have words and others have a text: give all of them as `tokens`, or none")
    if any(have_words):
        words = model.tag_words(batch, aggregation=options.aggregation, head=head.name)
        return ({"tags": [w.tag for w in text], "scores": [w.score for w in text]} for text in words)
    tagged = model.tag(batch, aggregation=options.aggregation, head=head.name)
    return ({"spans": [asdict(span) for span in spans]} for spans in tagged)


def _answers(model: Model, batch: TokenBatch, head: HeadInfo, options: PredictionOptions) -> Iterable[Record]:
    for answers in model.answer(
        batch, n_best=options.n_best or 1, null_threshold=options.null_threshold, head=head.name
    ):
        yield {
            "answers": [asdict(answer) for answer in answers],
            "no_answer": answers.no_answer,
            "null_score": answers.null_score,
        }


_RECORDS: Mapping[Task, Callable[[Model, TokenBatch, HeadInfo, PredictionOptions], Iterable[Record]]] = {
    Task.TEXT_CLASSIFICATION: _classes,
    Task.MULTI_LABEL_CLASSIFICATION: _classes,
    Task.NEXT_SENTENCE_PREDICTION: _classes,
    Task.TEXT_REGRESSION: _scores,
    Task.TOKEN_CLASSIFICATION: _spans,
    Task.QUESTION_ANSWERING: _answers,
}
"""Records of each task, before the counts are added."""
