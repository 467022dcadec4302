"""The space of a bundle's sentence embeddings: fixed texts with their golden vectors, and an id made of them.

Every bundle keeps the embeddings that eager PyTorch gives for the sample texts. Two bundles can be compared by them
without running either.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, SENTENCE_EMBEDDING, TOKENIZER_FILE, Embedding, Manifest
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import BundleError, WrongTaskError
from encort.runtime.text.token_batch import Text
from encort.runtime.text.token_prompt import prompt_text
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden_vectors import Golden

ID_TEXTS = (
    "How do I reset the PIN of my card?",
    "Hello!",
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog.",
    "안녕하세요",
    "배송이 언제 도착하나요?",
    "¿Dónde está la estación de tren más cercana?",
    "東京は日本の首都です。",
    "Terrible. Never again.",
    "A man is playing a guitar.",
    "Two dogs run across a snowy field.",
    "Interest rates were left unchanged.",
)
"""Short sample texts that the id is made of. Other texts would give other ids, so they never change."""
_ID_BITS = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Space:
    """Sample texts of a bundle, with the vectors that callers get for them without a prompt.

    Attributes:
        embedding: The manifest's settings of embeddings.
        prompt: Text that is put before inputs if the caller names no prompt.
        max_length: Largest number of tokens of one input.
        ids: Token ids of each text.
        cut: Texts that are over the limit of tokens.
        vectors: Vector of each text, `(dim,)` float32.
    """

    embedding: Embedding
    prompt: str
    max_length: int
    ids: Mapping[Text, tuple[int, ...]]
    cut: frozenset[Text]
    vectors: Mapping[Text, FloatArray]

    @classmethod
    def read(cls, bundle: Bundle) -> "Space":
        """Read the golden vectors of a bundle.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            BundleError: Its golden vectors are damaged.
        """
        embedding, golden = bundle.manifest.embedding, Golden.load(bundle.read(GOLDEN_FILE))
        if embedding is None:
            raise WrongTaskError(f"{bundle.folder} has no sentence embeddings, so it has no space of vectors")
        vectors = golden.outputs.get(SENTENCE_EMBEDDING, np.empty(0))
        if len(vectors) != len(golden.texts) or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise BundleError(f"{GOLDEN_FILE} of {bundle.folder} has no sentence embeddings; export the bundle again")
        tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        batch = tokenizer(golden.texts)
        ids = np.split(batch.ids, batch.cu_seqlens[1:-1])
        return cls(
            embedding=embedding,
            prompt=prompt_text(bundle.manifest.prompts.resolve(None)),
            max_length=bundle.manifest.max_length,
            ids={text: tuple(row.tolist()) for text, row in zip(golden.texts, ids, strict=True)},
            cut=frozenset(text for text, cut in zip(golden.texts, batch.truncated, strict=True) if cut),
            vectors=dict(zip(golden.texts, vectors[:, : embedding.truncate_dim], strict=True)),
        )


def with_space(manifest: Manifest, golden: Golden) -> Manifest:
    """Return the manifest with the id of its space, if it has sentence embeddings."""
    embedding = manifest.embedding
    if embedding is None:
        return manifest
    vectors = golden.outputs[SENTENCE_EMBEDDING][:, : embedding.truncate_dim]
    space = space_id(golden.texts, vectors, prompt=prompt_text(manifest.prompts.resolve(None)))
    return replace(manifest, embedding=replace(embedding, space=space))


def space_id(texts: Sequence[Text], vectors: FloatArray, *, prompt: str = "") -> str | None:
    """Return 16 hexadecimal digits that exports of one model share, whatever their precision and machine.

    They are the signs of 64 fixed random sums of the vectors' values (a locality-sensitive hash). So the rounding of
    float32 changes none of them as a rule, close spaces have close ids, and all other spaces, also rotated ones, have
    other ids. Only `compat` tells for sure.

    Args:
        texts: Texts, among them all of `ID_TEXTS`.
        vectors: Vector of each text, `(texts, dim)` float32.
        prompt: Default prompt of callers. With another one they get other vectors, although the graph gives the same.

    Returns:
        The id; None if a text is missing, as for models of pairs.
    """
    rows = {text: row for text, row in zip(texts, vectors, strict=True) if isinstance(text, str)}
    if not all(text in rows for text in ID_TEXTS):
        return None
    chosen = np.array([rows[text] for text in ID_TEXTS], np.float64)
    centered = (chosen - chosen.mean(axis=0)).ravel()
    # Not numpy's generators: their numbers may change between versions.
    stream = hashlib.shake_256(b"encort").digest(-(-_ID_BITS * centered.size // 8))
    signs = 1.0 - 2.0 * np.unpackbits(np.frombuffer(stream, np.uint8), count=_ID_BITS * centered.size)
    bits = np.packbits(signs.reshape(_ID_BITS, -1) @ centered > 0).tobytes()
    mask = hashlib.sha256(prompt.encode()).digest()[: len(bits)] if prompt else bytes(len(bits))
    return bytes(a ^ b for a, b in zip(bits, mask, strict=True)).hex()
