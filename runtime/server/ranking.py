"""The tasks of a bundle; and scores of pairs of texts, from a cross-encoder or by the similarity of embeddings."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Similarity, Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.server.embeddings import run_all
from encort.runtime.server.models import ServedModel
from encort.runtime.serving.calls import rows_as_list
from encort.runtime.tasks.retrieval import max_sim
from encort.runtime.tasks.similarity import similarities
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.prompts import DOCUMENT_NAMES, QUERY_NAMES
from encort.runtime.text.windows import Overflow


def tasks_of(served: ServedModel) -> list[str]:
    """Return the names of the tasks that a bundle has."""
    heads = {head.task for head in served.model.manifest.heads}
    has_embeddings = SENTENCE_EMBEDDING in served.model.variant.outputs
    has = {
        "embed": has_embeddings,
        "classify": not heads.isdisjoint(CLASSIFIERS),
        "score": Task.TEXT_REGRESSION in heads,
        "tag": Task.TOKEN_CLASSIFICATION in heads,
        "answer": Task.QUESTION_ANSWERING in heads,
        "rank": has_embeddings or _has_token_vectors(served) or Task.TEXT_REGRESSION in heads,
    }
    return [name for name, is_there in has.items() if is_there]


def has_scores(served: ServedModel) -> bool:
    """Return whether the bundle has a head that scores pairs."""
    return any(head.task is Task.TEXT_REGRESSION for head in served.model.manifest.heads)


async def score_documents(
    served: ServedModel, query: str, documents: Sequence[str], *, overflow: Overflow = "truncate"
) -> tuple[FloatArray, int]:
    """Return the score of each document for a query as `Model.rank` does, `(n,)` float32, and the number of tokens.

    Raises:
        WrongTaskError: The bundle has neither a regression head nor embeddings to compare.
    """
    if has_scores(served):
        return await score_pairs(served, [(query, document) for document in documents], overflow=overflow)
    manifest, tasks = served.model.manifest, served.service.tasks
    of_query, of_documents = (manifest.prompts.choose(names) for names in (QUERY_NAMES, DOCUMENT_NAMES))
    make_spec: Callable[..., TaskSpec[Any]] = tasks.embed_tokens if _has_token_vectors(served) else tasks.embed
    first = await run_all(served, make_spec(prompt=of_query), [query], overflow=overflow)
    second = await run_all(served, make_spec(prompt=of_documents), documents, overflow=overflow)
    if _has_token_vectors(served):
        scores = max_sim(first.items[0], second.items)
    else:
        function = Similarity.COSINE if manifest.embedding is None else manifest.embedding.similarity
        scores = similarities(np.stack(first.items), np.stack(second.items), function)[0]
    return scores, first.tokens + second.tokens


def _has_token_vectors(served: ServedModel) -> bool:
    """Return whether the bundle compares texts by the vectors of their tokens, as ColBERT does."""
    return served.model.manifest.embedding is None and served.model.manifest.late_interaction is not None


async def score_pairs(
    served: ServedModel, pairs: Sequence[tuple[str, str]], *, overflow: Overflow = "truncate"
) -> tuple[FloatArray, int]:
    """Return the score of each pair from the regression head, `(n,)` float32, and the number of tokens.

    Raises:
        WrongTaskError: The bundle has no regression head.
    """
    results = await run_all(served, rows_as_list(served.service.tasks.score(None)), pairs, overflow=overflow)
    return np.array(results.items, np.float32), results.tokens
