"""The manifest of a bundle: what `encort.json` says, as frozen dataclasses.

{"format_version": 3, "heads": [{"name": "text-classification", "task": "text-classification", "labels": [...]}],
 "embedding": {"pooling": "mean", "normalize": true}, "max_length": 256, "sources": [{...}], "tools": {...},
 "files": {"tokenizer.json": {"sha256": "...", "bytes": 466247}, ...},
 "variants": [{"name": "cpu-fp32", "file": "cpu-fp32.onnx", "layout": "equal_length", ...}]}
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from encort.runtime.bundle.schema import SchemaError, from_plain
from encort.runtime.common.errors import BundleError, BundleVersionError

FORMAT_VERSION = 3
MANIFEST_FILE = "encort.json"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
GOLDEN_FILE = "golden.npz"

_TOKENS = frozenset({"input_ids", "token_type_ids", "reversed_input_ids", "reversed_token_type_ids"})
_PADDED = frozenset({"attention_mask"})
_PACKED = frozenset({"position_ids", "token_offset", "cu_seqlens"})
"""What a graph may read."""

PORTABLE = "portable"
"""Name of the variant in standard operators, which may give fewer outputs than the others."""

LAST_HIDDEN_STATE = "last_hidden_state"
"""Output of the encoder, `(batch, sequence, hidden)` float32."""
POOLER_OUTPUT = "pooler_output"
"""Output of the encoder's pooler, `(batch, hidden)` float32."""
SENTENCE_EMBEDDING = "sentence_embedding"
"""Pooled, and normalized if the manifest says so, `(batch, hidden)` float32."""


class Task(StrEnum):
    """What a head is for; where Hugging Face has a name for it, it is that one."""

    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_CLASSIFICATION = "text-classification"
    MULTI_LABEL_CLASSIFICATION = "multi-label-classification"
    TEXT_REGRESSION = "text-regression"
    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - not a password
    QUESTION_ANSWERING = "question-answering"
    NEXT_SENTENCE_PREDICTION = "next-sentence-prediction"

    @property
    def is_classification(self) -> bool:
        """Whether it gives a text labels with probabilities."""
        return self in (Task.TEXT_CLASSIFICATION, Task.MULTI_LABEL_CLASSIFICATION, Task.NEXT_SENTENCE_PREDICTION)

    @property
    def is_tokenwise(self) -> bool:
        """Whether its logits have a row a token and not a row a text."""
        return self in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING)


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
    FP16 = "fp16"
    INT8 = "int8"


class Layout(StrEnum):
    """How the token ids of several texts share one graph run.

    `equal_length`: `(batch, sequence)` without a mask, so every text has exactly `sequence` tokens.
    `ragged`: `(batch, sequence)` with an `attention_mask` of 1 on the tokens that count, the first of each row among
        them; inside, only attention sees the others.
    `padded`: as `ragged`, but all of the graph computes the others too.
    `packed`: `(tokens,)`, one text after the other, with `position_ids`, `token_offset` and `cu_seqlens`.
    """

    EQUAL_LENGTH = "equal_length"
    RAGGED = "ragged"
    PACKED = "packed"
    PADDED = "padded"


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
class Embedding:
    """How sentence embeddings are made."""

    pooling: Pooling
    normalize: bool


@dataclass(frozen=True, kw_only=True)
class HeadInfo:
    """One head on the encoder.

    Attributes:
        name: By which it is asked for, where a bundle has several.
        labels: Names of the logits' columns; empty for question answering.
        outputs: Names of its outputs in every graph: its logits, `(batch, labels)` or `(batch, sequence, labels)`
            float32; for question answering those of start and end, each `(batch, sequence)`.
        tags_words: Of token classification: a word has the tag of its first token. Otherwise each token has its own,
            as in languages that write more than one word without a space.
    """

    name: str
    task: Task
    labels: list[str]
    outputs: list[str]
    tags_words: bool = True


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What labelled data says of a variant.

    Attributes:
        name: The metric, for example `accuracy`; more is better.
        before: Of the model that was trained, in percent.
        after: Of this variant, in percent.
        examples: Number of labelled examples.
    """

    name: str
    before: float
    after: float
    examples: int


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A variant's certificate: how far it is from eager PyTorch, as measured at export.

    Attributes:
        max_abs_error: Largest absolute difference of each output, over all cases.
        mean_cosine: Mean cosine between sentence embeddings (without any: between logits), over the sample texts.
        min_cosine: Smallest such cosine.
        label_flips: Decisions that differ over the sample texts: the label of a text, each of several labels, the tag
            of a token; over all heads. None without labels.
        batch_difference: Largest difference between a text's vector alone and among others.
        texts: Number of sample texts.
        cases: Number of batches compared, those of random ids and random masks included.
        metric: What labelled data said, if any was given.
        cpu: The processor that it was measured on.
    """

    max_abs_error: Mapping[str, float]
    mean_cosine: float
    min_cosine: float
    label_flips: int | None
    batch_difference: float
    texts: int
    cases: int
    metric: Metric | None
    cpu: str


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

    @property
    def vector(self) -> str:
        """The output whose cosines the certificate gives: the sentence embedding, without one the first logits."""
        return SENTENCE_EMBEDDING if SENTENCE_EMBEDDING in self.outputs else next(iter(self.outputs), "")

    def is_tokenwise(self, output: str) -> bool:
        """Whether that output has a row a token and not a row a text."""
        return not {"sequence", "tokens"}.isdisjoint(self.outputs[output])

    @property
    def reads_reversed(self) -> bool:
        """Whether it takes every pair twice, the second time with its texts exchanged."""
        return "reversed_input_ids" in self.inputs


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that `encort.json` says.

    Attributes:
        heads: The heads, the first of them the one that `predict` means; empty for an encoder alone.
        embedding: None where the model gives no sentence embeddings.
        max_length: Most tokens of one input, special tokens included.
        tools: Versions of the packages that made the bundle.
        files: Every file of the bundle but the manifest, by name.
    """

    format_version: int
    heads: list[HeadInfo]
    embedding: Embedding | None
    max_length: int
    sources: list[Source]
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
        for problem in manifest._problems():
            raise BundleError(f"{MANIFEST_FILE}: {problem}; export the bundle again")
        return manifest

    @property
    def task(self) -> Task:
        """What `Model.predict` gives."""
        return self.heads[0].task if self.heads else Task.FEATURE_EXTRACTION

    def _problems(self) -> Iterator[str]:
        """What would surprise a reader of the manifest: names twice, outputs that are not what the heads need."""
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            yield "two heads have one name"
        variants = [variant.name for variant in self.variants]
        if len(set(variants)) < len(variants):
            yield "two variants have one name"
        for head in self.heads:
            if len(set(head.labels)) < len(head.labels):
                yield f"two labels of {head.name} have one name"
            if not _fits(head):
                yield f"head {head.name} cannot have {len(head.labels)} labels and {len(head.outputs)} outputs"
        for variant in self.variants:
            known = _TOKENS | (_PACKED if variant.layout is Layout.PACKED else _PADDED)
            if unknown := variant.inputs.keys() - known:
                yield f"{variant.name} reads {', '.join(sorted(unknown))}"
            for head in self.heads:
                if any(variant.outputs.get(name) != _logits_axes(head, variant.layout) for name in head.outputs):
                    yield f"the {len(head.labels)} labels of {head.name} do not name the logits of {variant.name}"
            for name in _VECTORS & variant.outputs.keys():
                if len(variant.outputs[name]) != 2 or not variant.outputs[name][1].isdecimal():
                    yield f"{name} of {variant.name} has no size"


_VECTORS = {POOLER_OUTPUT, SENTENCE_EMBEDDING}


def _fits(head: HeadInfo) -> bool:
    """Whether the head has as many labels and outputs as its task asks for."""
    if head.task is Task.QUESTION_ANSWERING:
        return not head.labels and len(head.outputs) == 2
    if head.task is Task.TEXT_REGRESSION:
        return len(head.labels) == 1 and len(head.outputs) == 1
    return head.task is not Task.FEATURE_EXTRACTION and bool(head.labels) and len(head.outputs) == 1


def _logits_axes(head: HeadInfo, layout: Layout) -> list[str]:
    tokens = ["tokens"] if layout is Layout.PACKED else ["batch", "sequence"]
    rows = tokens if head.task.is_tokenwise else ["batch"]
    return [*rows, str(len(head.labels))] if head.labels else rows
