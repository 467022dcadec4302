"""Golden vectors: sample texts and the outputs of eager PyTorch for them, which the bundle keeps."""

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import BundleError, BundleFileChangedError
from encort.runtime.common.files import parse_json
from encort.runtime.text.masks import with_any_positions
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.words import SubwordMarks

_LARGEST_UNPACKED = 2**30
"""Largest size of all golden vectors, in bytes. Hidden states are not among them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Golden:
    """Sample texts, their token ids, and the expected outputs.

    Attributes:
        texts: Sample texts.
        ids: Token ids of all texts from the checkpoint's own tokenizer, `(tokens,)` int64.
        outputs: Outputs by name, float32, with one row per text or one row per token.
    """

    texts: Sequence[Text]
    ids: Int64Array
    outputs: Mapping[str, FloatArray]

    def save(self, file: Path) -> None:
        """Write golden vectors to an .npz file."""
        arrays = {f"output:{name}": array for name, array in self.outputs.items()}
        np.savez(file, texts=np.array(json.dumps(self.texts)), ids=self.ids, **arrays)  # type: ignore[arg-type] # numpy's stub

    @classmethod
    def load(cls, content: bytes) -> "Golden":
        """Read golden vectors from the content of an .npz file.

        Raises:
            BundleError: The content has no golden vectors.
        """
        try:
            _check_unpacked_size(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                texts = [_text(text) for text in parse_json(str(arrays["texts"]))]
                outputs = {name.removeprefix("output:"): arrays[name] for name in arrays if name.startswith("output:")}
                golden = cls(texts=texts, ids=arrays["ids"], outputs=outputs)
        except (BadZipFile, EOFError, KeyError, MemoryError, OSError, TypeError, ValueError, zlib.error) as error:
            raise BundleError(f"{GOLDEN_FILE} holds no golden vectors ({error}); export the bundle again") from error
        if not texts or any(
            array.ndim == 0 or len(array) not in (len(texts), len(golden.ids)) for array in outputs.values()
        ):
            raise BundleError(f"{GOLDEN_FILE} does not have one golden vector per text; export the bundle again")
        return golden


@dataclass(frozen=True, eq=False, kw_only=True)
class GoldenSamples:
    """The golden vectors, and their texts as tokens.

    Attributes:
        golden: The golden vectors.
        batch: Their texts, tokenized.
        marks: Signs of the tokenizer by which some aggregations find words.
    """

    golden: Golden
    batch: TokenBatch
    marks: SubwordMarks

    @classmethod
    def of(cls, bundle: Bundle, variants: Sequence[Variant]) -> "GoldenSamples":
        """Tokenize the sample texts with what the variants read.

        Raises:
            BundleFileChangedError: The tokenizer gives other ids than at export.
        """
        golden = Golden.load(bundle.read(GOLDEN_FILE))
        tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        batch = tokenizer(
            golden.texts,
            return_offsets=any(head.task.is_tokenwise for head in bundle.manifest.heads),
            reverse=any(variant.reads_reversed for variant in variants),
            return_prompt_length=any(variant.reads_prompt_length for variant in variants),
        )
        if not np.array_equal(batch.ids, golden.ids):
            raise BundleFileChangedError(
                f"{bundle.folder}: the tokenizer gives other ids than at export; install the tokenizers version of "
                f"encort.json ({bundle.manifest.tools.get('tokenizers', 'unknown')}), or export again"
            )
        batch = with_any_positions(batch)
        return cls(golden=golden, batch=batch, marks=tokenizer.subword_marks)


def _check_unpacked_size(content: bytes) -> None:
    with ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _LARGEST_UNPACKED:
        raise ValueError(f"it unpacks to {size:,} bytes, more than any golden vectors")


def _text(value: object) -> Text:
    """Return a text or a pair from a JSON value."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    raise ValueError("a text is neither a string nor a pair of strings")
