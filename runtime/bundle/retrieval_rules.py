"""Rules for the outputs of token vectors and sparse embeddings in a manifest."""

from collections.abc import Iterator

from encort.runtime.bundle.manifest import PORTABLE, TOKEN_EMBEDDINGS, TOKEN_WEIGHTS, Layout, Manifest, Variant


def retrieval_problems(manifest: Manifest, variant: Variant) -> Iterator[str]:
    """Yield what is wrong with the token vectors and the sparse embeddings of a variant."""
    tokens = ["tokens"] if variant.layout is Layout.PACKED else ["batch", "sequence"]
    vectors = variant.outputs.get(TOKEN_EMBEDDINGS)
    if vectors is not None and not (vectors[:-1] == tokens and vectors[-1].isdecimal()):
        yield f"{TOKEN_EMBEDDINGS} of {variant.name} has axes {vectors}, expected {tokens} and a size"
    if variant.outputs.get(TOKEN_WEIGHTS, tokens) != tokens:
        yield f"{TOKEN_WEIGHTS} of {variant.name} has axes {variant.outputs[TOKEN_WEIGHTS]}, expected {tokens}"
    if variant.name == PORTABLE:
        return
    if manifest.late_interaction is not None and vectors is None:
        yield f"{variant.name} gives no {TOKEN_EMBEDDINGS}"
    if manifest.sparse is not None and TOKEN_WEIGHTS not in variant.outputs:
        yield f"{variant.name} gives no {TOKEN_WEIGHTS}"
