"""`SentenceTransformer` and `CrossEncoder` of sentence-transformers, on bundles of encort.

    from encort.integrations.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("minilm.bundle")
    embeddings = model.encode(["a text", "another"])

Only the import and the name of the model change in a script. docs/moving-over/sentence-transformers.md says what
differs. torch is imported when a result is a tensor in sentence-transformers too, and never before.

Reading order: `opening` finds the bundle and refuses options that a bundle cannot follow; `inputs` and `outputs` are
what goes in and comes out; `tensors` has the similarities, and imports torch; `opened_bundle`, `transformers_parts` and
`bundle_model` are what both classes share; `encoder` and `cross_encoder` are the classes.
"""

from encort.integrations.sentence_transformers.cross_encoder import CrossEncoder
from encort.integrations.sentence_transformers.encoder import SentenceTransformer

__all__ = ["CrossEncoder", "SentenceTransformer"]
