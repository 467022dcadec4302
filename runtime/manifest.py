"""The manifest of a bundle: what `encort.json` says, as frozen dataclasses.

{"format_version": 1, "task": "text-classification", "labels": ["card_arrival", ...], "pooling": "mean",
 "normalize": true, "max_length": 256, "source": {...}, "tools": {...},
 "files": {"tokenizer.json": {"sha256": "...", "bytes": 466247}, ...},
 "variants": [{"name": "cpu-fp32", "file": "cpu-fp32.onnx", "layout": "equal_length", ...}]}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from encort.runtime.errors import BundleError, BundleVersionError
from encort.runtime.schema import SchemaError, from_plain

FORMAT_VERSION = 1
MANIFEST_FILE = "encort.json"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
GOLDEN_FILE = "golden.npz"


class Task(StrEnum):
    """What `Model.predict` gives; the names are those of Hugging Face pipelines."""

    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_CLASSIFICATION = "text-classification"


class Pooling(StrEnum):
    """How token embeddings become one sentence embedding."""

    MEAN = "mean"
    CLS = "cls"
    POOLER = "pooler"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    FP32 = "fp32"


class Layout(StrEnum):
    """How the token ids of several texts share one graph run.

    `equal_length`: `(batch, sequence)` without a mask, so every text has exactly `sequence` tokens.
    `padded`: `(batch, sequence)` with an `attention_mask` of 1 on the tokens that count.
    """

    EQUAL_LENGTH = "equal_length"
    PADDED = "padded"


class Output(StrEnum):
    """The names of graph outputs. A bundle has those that its heads give."""

    LAST_HIDDEN_STATE = "last_hidden_state"  # (batch, sequence, hidden) float32
    POOLER_OUTPUT = "pooler_output"  # (batch, hidden) float32
    SENTENCE_EMBEDDING = "sentence_embedding"  # (batch, hidden) float32
    LOGITS = "logits"  # (batch, labels) float32


TOLERANCES: Mapping[Precision, float] = {Precision.FP32: 1e-4}
"""Largest absolute difference to eager PyTorch, in any output, that export and verify let pass."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights came from."""

    model: str
    architecture: str
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How far a variant is from eager PyTorch, as measured at export.

    Attributes:
        max_abs_error: Largest absolute difference of each output, over all cases.
        mean_cosine: Mean cosine between sentence embeddings, over the sample texts.
        min_cosine: Smallest such cosine.
        label_flips: Sample texts whose most probable label differs; None without a classification head.
        batch_difference: Largest difference between a text's sentence embedding alone and among others.
        texts: Number of sample texts.
        cases: Number of batches compared, those of random ids and random masks included.
    """

    max_abs_error: Mapping[str, float]
    mean_cosine: float
    min_cosine: float
    label_flips: int | None
    batch_difference: float
    texts: int
    cases: int


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph of the bundle, made for one device and precision.

    Attributes:
        file: The ONNX graph.
        weights_file: Its external data, which variants may share.
        instruction_set: CPU instruction set that the numbers were chosen for, None if any will do.
        inputs: Axes of each input by name, for example `{"input_ids": ["batch", "sequence"]}`.
        outputs: Axes of each output by name; a fixed axis is its size in decimal.
    """

    name: str
    file: str
    weights_file: str | None
    device: Device
    precision: Precision
    layout: Layout
    instruction_set: str | None
    inputs: Mapping[str, list[str]]
    outputs: Mapping[str, list[str]]
    fidelity: Fidelity | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that `encort.json` says.

    Attributes:
        labels: Names of the logits' columns; empty without a classification head.
        max_length: Most tokens of one input, special tokens included.
        tools: Versions of the packages that made the bundle.
        files: Every file of the bundle but the manifest, by name.
    """

    format_version: int
    task: Task
    labels: list[str]
    pooling: Pooling
    normalize: bool
    max_length: int
    source: Source
    tools: Mapping[str, str]
    files: Mapping[str, FileEntry]
    variants: list[Variant]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleVersionError: The format is newer or older than this encort reads.
            BundleError: It is not JSON, or a field is missing, unknown or of another type.
        """
        try:
            plain: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_FILE} is not JSON ({error}); export the bundle again") from error
        version = plain.get("format_version") if isinstance(plain, dict) else None
        if version != FORMAT_VERSION:
            raise BundleVersionError(
                f"{MANIFEST_FILE} has format_version {version!r}, this encort reads {FORMAT_VERSION}; "
                "export the bundle again, or install the encort that made it"
            )
        try:
            manifest = from_plain(cls, plain)
        except SchemaError as error:
            raise BundleError(f"{MANIFEST_FILE}: {error}; export the bundle again") from error
        manifest._check_labels()
        return manifest

    def _check_labels(self) -> None:
        """Labels are different names, one for each column of every variant's logits."""
        problem = None
        for variant in self.variants:
            axes = variant.outputs.get(Output.LOGITS)
            if (axes is None) != (not self.labels) or (axes is not None and axes[-1:] != [str(len(self.labels))]):
                problem = f"{len(self.labels)} labels do not name the logits of {variant.name}"
        if len(set(self.labels)) != len(self.labels):
            problem = "two labels have one name"
        if problem is not None:
            raise BundleError(f"{MANIFEST_FILE}: {problem}; export the bundle again")
