"""Results as the command line writes them: one record per input, with plain values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.cli.writers import Record
from encort.runtime.common.errors import InputError
from encort.runtime.model import Model
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.windows import Overflow


def embedding_records(model: Model, batch: TokenBatch) -> list[Record]:
    """Return one record with the sentence embedding per text."""
    return _with_counts(batch, ({"embedding": embedding} for embedding in model.embed(batch)))


def prediction_records(
    model: Model, batch: TokenBatch, *, head: str | None, all_scores: bool, n_best: int | None
) -> list[Record]:
    """Return one record per text: of the named head, of the first head that fits the options, or embeddings.

    Raises:
        InputError: The options are for different tasks.
        WrongTaskError: The bundle has no such head.
    """
    chosen = _chosen_head(model, head, all_scores, n_best)
    if chosen is None:
        return embedding_records(model, batch)
    results = _RECORDS[chosen.task](model, batch, chosen, all_scores, n_best or 1)
    return _with_counts(batch, results)


def default_overflow(model: Model, *, head: str | None, all_scores: bool, n_best: int | None) -> Overflow:
    """Return the policy for inputs over the limit, if the user gives none: contexts of questions are read in windows.

    Raises:
        InputError: See `prediction_records`.
        WrongTaskError: See `prediction_records`.
    """
    chosen = _chosen_head(model, head, all_scores, n_best)
    return "window" if chosen is not None and chosen.task is Task.QUESTION_ANSWERING else "truncate"


def _chosen_head(model: Model, head: str | None, all_scores: bool, n_best: int | None) -> HeadInfo | None:
    if all_scores and n_best is not None:
        raise InputError("--all-scores is for classification and --n-best for question answering; give one of them")
    tasks: tuple[Task, ...] = ()
    if all_scores:
        tasks = CLASSIFIERS
    elif n_best is not None:
        tasks = (Task.QUESTION_ANSWERING,)
    return model.head(head, *tasks) if head is not None or tasks or model.manifest.heads else None


def _with_counts(batch: TokenBatch, records: Iterable[Mapping[str, Any]]) -> list[Record]:
    counts = zip(batch.tokens_per_text.tolist(), batch.truncated_texts.tolist(), strict=True)
    return [
        {**record, "tokens": tokens, "truncated": truncated}
        for record, (tokens, truncated) in zip(records, counts, strict=True)
    ]


def _classes(model: Model, batch: TokenBatch, head: HeadInfo, all_scores: bool, _n_best: int) -> Iterable[Record]:
    for result in model.classify(batch, head=head.name):
        record: dict[str, Any] = {"label": result.label, "score": result.score}
        if head.task is Task.MULTI_LABEL_CLASSIFICATION:
            record = {"labels": result.above()}
        yield record | {"scores": result.scores} if all_scores else record


def _scores(model: Model, batch: TokenBatch, head: HeadInfo, _all_scores: bool, _n_best: int) -> Iterable[Record]:
    return ({"score": score} for score in model.score(batch, head=head.name).tolist())


def _spans(model: Model, batch: TokenBatch, head: HeadInfo, _all_scores: bool, _n_best: int) -> Iterable[Record]:
    return ({"spans": [asdict(span) for span in spans]} for spans in model.tag(batch, head=head.name))


def _answers(model: Model, batch: TokenBatch, head: HeadInfo, _all_scores: bool, n_best: int) -> Iterable[Record]:
    matches = model.answer(batch, n_best=n_best, head=head.name)
    return ({"answers": [asdict(answer) for answer in answers]} for answers in matches)


_RECORDS: Mapping[Task, Callable[[Model, TokenBatch, HeadInfo, bool, int], Iterable[Record]]] = {
    Task.TEXT_CLASSIFICATION: _classes,
    Task.MULTI_LABEL_CLASSIFICATION: _classes,
    Task.NEXT_SENTENCE_PREDICTION: _classes,
    Task.TEXT_REGRESSION: _scores,
    Task.TOKEN_CLASSIFICATION: _spans,
    Task.QUESTION_ANSWERING: _answers,
}
"""Records of each task, before the counts are added."""
