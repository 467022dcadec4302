"""Results as the command line writes them: one record an input, plain values only."""

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
    return _counted(batch, ({"embedding": embedding} for embedding in model.embed(batch)))


def prediction_records(
    model: Model, batch: TokenBatch, *, head: str | None, all_scores: bool, n_best: int | None
) -> list[Record]:
    """Records of the named head, of the first one that the options are for, or embeddings where there is none.

    Raises:
        InputError: The options are for different tasks.
        WrongTaskError: There is no such head.
    """
    chosen = _asked(model, head, all_scores, n_best)
    if chosen is None:
        return embedding_records(model, batch)
    results = _WRITERS[chosen.task](model, batch, chosen, all_scores, n_best or 1)
    return _counted(batch, results)


def overflow_of(model: Model, *, head: str | None, all_scores: bool, n_best: int | None) -> Overflow:
    """What becomes of too long inputs, if the user does not say: contexts of questions are read in windows.

    Raises:
        InputError: See `prediction_records`.
        WrongTaskError: See `prediction_records`.
    """
    chosen = _asked(model, head, all_scores, n_best)
    return "window" if chosen is not None and chosen.task is Task.QUESTION_ANSWERING else "truncate"


def _asked(model: Model, head: str | None, all_scores: bool, n_best: int | None) -> HeadInfo | None:
    if all_scores and n_best is not None:
        raise InputError("--all-scores is for classification and --n-best for question answering; give one of them")
    answers = () if n_best is None else (Task.QUESTION_ANSWERING,)
    tasks = CLASSIFIERS if all_scores else answers
    return model.head(head, *tasks) if head is not None or tasks or model.manifest.heads else None


def _counted(batch: TokenBatch, records: Iterable[Mapping[str, Any]]) -> list[Record]:
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
    found = model.answer(batch, n_best=n_best, head=head.name)
    return ({"answers": [asdict(answer) for answer in answers]} for answers in found)


_WRITERS: Mapping[Task, Callable[[Model, TokenBatch, HeadInfo, bool, int], Iterable[Record]]] = {
    Task.TEXT_CLASSIFICATION: _classes,
    Task.MULTI_LABEL_CLASSIFICATION: _classes,
    Task.NEXT_SENTENCE_PREDICTION: _classes,
    Task.TEXT_REGRESSION: _scores,
    Task.TOKEN_CLASSIFICATION: _spans,
    Task.QUESTION_ANSWERING: _answers,
}
