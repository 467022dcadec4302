"""The tasks of retrieval: token vectors, sparse embeddings, and all embeddings in one run."""

import numpy as np

from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_WEIGHTS,
    Manifest,
    Variant,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import WrongTaskError
from encort.runtime.tasks.results import AllEmbeddings, SparseEmbedding
from encort.runtime.tasks.retrieval import sparse_embeddings, token_vectors, vocabulary_embeddings
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.added_tokens import kept_tokens
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.windows import merge_windows


def token_embeddings_spec(
    manifest: Manifest, variant: Variant, prompt: str | Prompt | None
) -> TaskSpec[list[FloatArray]]:
    """Return the spec of `Model.embed_tokens`.

    Raises:
        WrongTaskError: The graph gives neither token vectors nor hidden states.
        InputError: There is no such prompt.
    """
    settings = manifest.late_interaction
    has_own_prompts = settings is not None and bool(settings.prompts)
    output = LAST_HIDDEN_STATE if settings is None else TOKEN_EMBEDDINGS
    return TaskSpec(
        outputs=[_checked_output(variant, output)],
        postprocess=lambda batch, arrays: _token_vectors(manifest, batch, arrays[0]),
        tokenwise=True,
        prompt=manifest.prompts.resolve(prompt) if has_own_prompts or prompt is not None else "",
        any_prompt=prompt is None,
    )


def sparse_spec(
    manifest: Manifest, variant: Variant, prompt: str | Prompt | None, top_k: int | None
) -> TaskSpec[list[SparseEmbedding]]:
    """Return the spec of `Model.embed_sparse`.

    Raises:
        WrongTaskError: The graph gives no sparse embeddings.
        InputTypeError: `top_k` is not a whole number.
        InputError: `top_k` is below 1, or there is no such prompt.
    """
    if top_k is not None:
        check_whole("top_k", top_k, least=1)
    if SPARSE_EMBEDDING in variant.outputs:
        return TaskSpec(
            outputs=[SPARSE_EMBEDDING],
            postprocess=lambda batch, arrays: vocabulary_embeddings(batch, arrays[0], top_k),
            merge=False,
            prompt=manifest.prompts.resolve(prompt),
            any_prompt=prompt is None,
        )
    return TaskSpec(
        outputs=[_checked_output(variant, TOKEN_WEIGHTS)],
        postprocess=lambda batch, arrays: sparse_embeddings(batch, arrays[0], _without_weight(manifest), top_k),
        tokenwise=True,
        prompt=manifest.prompts.resolve(prompt),
        any_prompt=prompt is None,
    )


def all_embeddings_spec(
    manifest: Manifest, variant: Variant, prompt: str | Prompt | None
) -> TaskSpec[list[AllEmbeddings]]:
    """Return the spec of `Model.embed_all`.

    Raises:
        WrongTaskError: The graph lacks one of the embeddings.
        InputError: There is no such prompt.
    """
    normalizes = manifest.embedding is not None and manifest.embedding.normalize

    def embeddings(batch: TokenBatch, arrays: list[FloatArray]) -> list[AllEmbeddings]:
        _, (dense,) = merge_windows(batch, arrays[:1], tokenwise=False, normalize=normalizes)
        whole, (weights, vectors) = merge_windows(batch, arrays[1:], tokenwise=True)
        sparse = sparse_embeddings(whole, weights, _without_weight(manifest), None)
        texts = zip(dense, sparse, _token_vectors(manifest, whole, vectors), strict=True)
        return [AllEmbeddings(dense=vector, sparse=weights, tokens=tokens) for vector, weights, tokens in texts]

    return TaskSpec(
        outputs=[_checked_output(variant, name) for name in (SENTENCE_EMBEDDING, TOKEN_WEIGHTS, TOKEN_EMBEDDINGS)],
        postprocess=embeddings,
        merge=False,  # one output has a row per text, and the others have a row per token
        prompt=manifest.prompts.resolve(prompt),
        any_prompt=prompt is None,
    )


def _token_vectors(manifest: Manifest, batch: TokenBatch, vectors: FloatArray) -> list[FloatArray]:
    settings = manifest.late_interaction
    kept = np.ones(len(batch.ids), np.bool_) if settings is None else kept_tokens(batch, settings.skipped)
    return token_vectors(batch, vectors, kept)


def _without_weight(manifest: Manifest) -> list[int]:
    return [] if manifest.sparse is None else manifest.sparse.skipped


def _checked_output(variant: Variant, name: str) -> str:
    if name not in variant.outputs:
        raise WrongTaskError(f"variant {variant.name} gives no {name}; it gives: {', '.join(variant.outputs)}")
    return name
