"""Rules for the outputs of token vectors and sparse embeddings in a manifest."""

from collections.abc import Iterator

from encort.runtime.bundle.manifest import (
    PORTABLE,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_WEIGHTS,
    Layout,
    Manifest,
    Variant,
)


def retrieval_problems(manifest: Manifest, variant: Variant) -> Iterator[str]:
    """Yield what is wrong with the token vectors and the sparse embeddings of a variant."""
    tokens = ["tokens"] if variant.layout is Layout.PACKED else ["batch", "sequence"]
    vectors = variant.outputs.get(TOKEN_EMBEDDINGS)
    if vectors is not None and not (vectors[:-1] == tokens and vectors[-1].isdecimal()):
        yield f"{TOKEN_EMBEDDINGS} of {variant.name} has axes {vectors}, expected {tokens} and a size"
    if variant.outputs.get(TOKEN_WEIGHTS, tokens) != tokens:
        yield f"{TOKEN_WEIGHTS} of {variant.name} has axes {variant.outputs[TOKEN_WEIGHTS]}, expected {tokens}"
    words = variant.outputs.get(SPARSE_EMBEDDING)
    if words is not None and not (words[:-1] == ["batch"] and words[-1].isdecimal()):
        yield f"{SPARSE_EMBEDDING} of {variant.name} has axes {words}, expected batch and a size"
    if variant.name == PORTABLE:
        return
    if manifest.late_interaction is not None and vectors is None:
        yield f"{variant.name} gives no {TOKEN_EMBEDDINGS}"
    if manifest.sparse is not None and variant.outputs.keys().isdisjoint((TOKEN_WEIGHTS, SPARSE_EMBEDDING)):
        yield f"{variant.name} gives neither {TOKEN_WEIGHTS} nor {SPARSE_EMBEDDING}"
