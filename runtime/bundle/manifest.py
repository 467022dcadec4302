"""The manifest of a bundle: the content of `encort.json` as frozen dataclasses.

An example, shortened:

    {"format_version": 4, "heads": [{"name": "text-classification", "task": "text-classification", "labels": [...]}],
     "embedding": {"pooling": ["mean"], "normalize": true}, "max_length": 256, "sources": [{...}], "tools": {...},
     "files": {"tokenizer.json": {"sha256": "...", "bytes": 466247}, ...},
     "variants": [{"name": "cpu-fp32", "file": "cpu-fp32.onnx", "layout": "equal_length", ...}]}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from encort.runtime.bundle.kernels import KERNELS
from encort.runtime.bundle.schema import to_plain
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.token_lists import TokenKind
from encort.runtime.text.prompts import DOCUMENT_NAMES, Prompts
from encort.runtime.text.token_prompt import TokenPrompt

FORMAT_VERSION = 4
MANIFEST_FILE = "encort.json"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
GOLDEN_FILE = "golden.npz"

PORTABLE = "portable"
"""Name of the variant in standard operators. It may have fewer outputs than the other variants."""

LAST_HIDDEN_STATE = "last_hidden_state"
"""Name of the output of the encoder, `(batch, sequence, hidden)` float32."""
POOLER_OUTPUT = "pooler_output"
"""Name of the output of the encoder's pooler, `(batch, hidden)` float32."""
SENTENCE_EMBEDDING = "sentence_embedding"
"""Name of the output with sentence embeddings, `(batch, size)` float32, normalized if the manifest says so."""
TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - not a password
"""Name of the output with one vector per token, `(batch, sequence, size)` float32 of length 1, as ColBERT has them."""
TOKEN_WEIGHTS = "token_weights"  # noqa: S105 - not a password
"""Name of the output with one weight per token, `(batch, sequence)` float32, at least 0, as bge-m3 has them."""
SPARSE_EMBEDDING = "sparse_embedding"
"""Name of the output with one weight per word of the vocabulary, `(batch, vocabulary)` float32, at least 0."""
PROMPT_LENGTH = "prompt_length"
"""Name of the input with the number of leading tokens that pooling leaves out, `(batch,)` int64; 0 without a prompt."""
MASK_POSITION = "mask_position"
"""Name of the input with the number of the token whose word is predicted, `(batch,)` int64, from 0."""
ROW_INPUTS = (PROMPT_LENGTH, MASK_POSITION)
"""Names of the inputs with one number per row."""


class Task(StrEnum):
    """Task of a head, with the name that Hugging Face uses if there is one."""

    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_CLASSIFICATION = "text-classification"
    MULTI_LABEL_CLASSIFICATION = "multi-label-classification"
    TEXT_REGRESSION = "text-regression"
    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - not a password
    QUESTION_ANSWERING = "question-answering"
    NEXT_SENTENCE_PREDICTION = "next-sentence-prediction"
    FILL_MASK = "fill-mask"

    @property
    def is_classification(self) -> bool:
        """Whether the task gives labels with probabilities per text."""
        return self in (Task.TEXT_CLASSIFICATION, Task.MULTI_LABEL_CLASSIFICATION, Task.NEXT_SENTENCE_PREDICTION)

    @property
    def is_tokenwise(self) -> bool:
        """Whether the logits have one row per token, and not one row per text."""
        return self in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING)

    @property
    def reads_offsets(self) -> bool:
        """Whether results say where they are in the text."""
        return self.is_tokenwise or self is Task.FILL_MASK


class Pooling(StrEnum):
    """Method that makes one vector of the hidden states of a text, with the name that sentence-transformers uses.

    `mean`, `cls`, `max`: Mean of the tokens, the first token, and the largest value of each dimension.
    `pooler`: Output of the encoder's own pooler. sentence-transformers has no such method.
    `mean_sqrt_len_tokens`: Sum of the tokens, divided by the square root of their number.
    `weightedmean`: Mean of the tokens, each weighted by its position, counted from 1.
    `lasttoken`: The last token.
    """

    MEAN = "mean"
    CLS = "cls"
    POOLER = "pooler"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"
    LAST_TOKEN = "lasttoken"  # noqa: S105 - not a password


class Similarity(StrEnum):
    """Function that compares two sentence embeddings: the larger its value, the more similar they are.

    `euclidean` and `manhattan` are negative distances.
    """

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


class Activation(StrEnum):
    """Function of the logits of a text that a `CrossEncoder` of sentence-transformers applies."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    SOFTMAX = "softmax"


class Device(StrEnum):
    """Kind of device that runs a graph."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Numeric precision of the linear layers of a graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Layout(StrEnum):
    """Layout of the token ids of several texts in one run of a graph.

    `equal_length`: `(batch, sequence)` without a mask. Every text has exactly `sequence` tokens.
    `ragged`: `(batch, sequence)` with an `attention_mask`, which is 1 for tokens and 0 for padding. The first column is
        always a token. Inside the graph, only attention computes padding.
    `padded`: Like `ragged`, but the whole graph computes padding.
    `expanded`: Like `padded`, for models that expand queries: masked tokens read the other tokens, and are not padding.
    `packed`: `(tokens,)`, one text after the other, with `position_ids`, `token_offset` and `cu_seqlens`.
    """

    EQUAL_LENGTH = "equal_length"
    RAGGED = "ragged"
    PACKED = "packed"
    PADDED = "padded"
    EXPANDED = "expanded"


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the bundle.

    Attributes:
        sha256: SHA-256 of its content, in hexadecimal.
        bytes: Size in bytes.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """Origin of the weights.

    Attributes:
        model: Folder or hub id of the checkpoint.
        architecture: Architecture of the checkpoint.
        revision: Commit of a hub checkpoint; None for a local folder.
        license: Licence, as the checkpoint's model card says; None: it does not say.
        base_model: Hub id of the checkpoint, or of the model that it was trained from, as its model card says; None: it
            is not known.
        adapter: Name of the adapter in the checkpoint's own weights that was merged; None: none was.
    """

    model: str
    architecture: str
    revision: str | None
    license: str | None = None
    base_model: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Sentence embeddings of the bundle.

    Attributes:
        pooling: Poolings of the hidden states. The vectors of several poolings are concatenated in this order.
        normalize: Whether embeddings have length 1.
        prompts: Texts that are put before inputs, by name.
        default_prompt: Name of the prompt that is used when a caller names none; None: no prompt.
        include_prompt: Whether the tokens of a prompt are pooled. If not, graphs have the input `prompt_length`.
        similarity: Function that compares two embeddings.
        truncate_dim: Number of leading values of an embedding that callers get unless they ask for another number, as
            of a model with Matryoshka embeddings; None: all.
        space: Id of the space of the vectors, which exports of one model share; see `space_id`. None: the bundle is of
            an earlier encort, or takes pairs only. It is no setting, so it does not make two settings unequal.
    """

    pooling: list[Pooling]
    normalize: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True
    similarity: Similarity = Similarity.COSINE
    truncate_dim: int | None = None
    space: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class LateInteraction:
    """Vectors of tokens, which are compared by the sum of the largest products (MaxSim), as in ColBERT.

    Attributes:
        prompts: How queries (`query`) and documents (`document`) are read; empty if both are read as they are.
        skipped: Token ids that give no vector in any text.
    """

    prompts: Mapping[str, TokenPrompt] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """Sparse embeddings: a weight for some tokens of the vocabulary.

    They come from weights of a text's own tokens (bge-m3), or of all words of the vocabulary (SPLADE).

    Attributes:
        skipped: Token ids that never have a weight, such as those of special tokens.
        prompts: Texts that are put before inputs, by name, if there are no sentence embeddings.
        default_prompt: Name of the prompt that is used when a caller names none; None: no prompt.
    """

    skipped: list[int] = field(default_factory=list)
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class HeadInfo:
    """One head on the encoder.

    Attributes:
        name: Name of the head, which callers use if a bundle has several.
        task: Task of the head.
        labels: Names of the columns of the logits; empty for question answering and masked words.
        outputs: Names of its outputs in every graph: the logits, `(batch, labels)` or `(batch, sequence, labels)`
            float32. For question answering: the logits of start and end, each `(batch, sequence)` float32. For masked
            words: the logits of the vocabulary at `mask_position`, `(batch, vocabulary)` float32; in the portable
            graph those of all tokens, `(batch, sequence, vocabulary)`.
        aggregation: For token classification: the default of `Model.tag`. `simple` for tags of characters, as for
            languages that write several words without spaces.
        tokens: For token classification: what the lists of tokens held that it was trained on. Lists that callers give
            are joined in the same way. None: it is not known, and each list is judged by what it holds.
        threshold: For multi-label classification: a label with at least this probability is a label of the text.
            Training chose it on validation data.
        null_threshold: For question answering: the default of `Model.answer`, which decides that a context has no
            answer. Training chose it on validation data.
        activation: Function of the logits of a text that the checkpoint names for sentence-transformers; for text
            regression, `Model.score` applies it. None: it names none.
        mask: For masked words: id of the token that stands for a missing word.
    """

    name: str
    task: Task
    labels: list[str]
    outputs: list[str]
    aggregation: Aggregation = Aggregation.WORD
    tokens: TokenKind | None = None
    threshold: float = 0.5
    null_threshold: float = 0.0
    activation: Activation | None = None
    mask: int | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Quality of a variant on labelled data.

    Attributes:
        name: Name of the metric, for example `accuracy`. Higher is better.
        before: Value of the trained model, in percent.
        after: Value of this variant, in percent.
        examples: Number of labelled examples.
    """

    name: str
    before: float
    after: float
    examples: int


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Certificate of a variant: its difference to eager PyTorch, as the export measured it.

    Attributes:
        max_abs_error: Largest absolute difference of each output over all cases.
        mean_cosine: Mean cosine between the vectors of `Variant.vector` over the sample texts.
        min_cosine: Smallest of these cosines.
        label_flips: Number of different decisions over the sample texts and all heads. A decision is the label of a
            text, one of several labels, or the tag of a token. None: no head has labels.
        batch_difference: Largest difference between the vector of a text alone and among other texts.
        texts: Number of sample texts.
        cases: Number of compared batches, including batches of random ids and random masks.
        metric: Quality on labelled data, if the export had any.
        cpu: Name of the processor that measured it.
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
class CalibrationTexts:
    """Texts that an int8 variant was calibrated on, and its quality on those that were held back.

    Attributes:
        given: Different texts that the user gave, or built-in texts if there were none.
        seen: Drawn texts on which the ranges were chosen.
        judged: Drawn texts on which the result was judged.
        seed: Seed of the draw.
        mean_cosine: Mean cosine between int8 and float32 vectors of the judged texts; None: it was not kept.
        min_cosine: Smallest of these cosines.
    """

    given: int
    seen: int
    judged: int
    seed: int
    mean_cosine: float | None = None
    min_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph of the bundle, made for one device and precision.

    Attributes:
        name: Name of the variant, for example `cpu-fp32`.
        file: File of the ONNX graph.
        weights_file: File of its external data, which variants may share; None: the weights are in the graph.
        device: Kind of device that it is made for.
        precision: Precision of its linear layers.
        layout: Layout of its inputs.
        instruction_set: CPU instruction set that it needs, or `encort-kernels` for a graph with its operators; None: it
            needs none.
        inputs: Axes of each input by name, for example `{"input_ids": ["batch", "sequence"]}`.
        outputs: Axes of each output by name. A fixed axis is its size in decimal.
        fidelity: Certificate; None while the export has not measured it.
        calibration: Texts of the calibration; None for other precisions than int8.
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
    calibration: CalibrationTexts | None = None

    @property
    def is_native(self) -> bool:
        """Whether the graph has the operators of encort-kernels."""
        return self.instruction_set == KERNELS

    @property
    def vector(self) -> str:
        """Name of the output that certificates compare by cosine: the sentence embedding, or else the first output."""
        return SENTENCE_EMBEDDING if SENTENCE_EMBEDDING in self.outputs else next(iter(self.outputs), "")

    def is_tokenwise(self, output: str) -> bool:
        """Return whether an output has one row per token, and not one row per text."""
        return not {"sequence", "tokens"}.isdisjoint(self.outputs[output])

    @property
    def reads_reversed(self) -> bool:
        """Whether the graph also reads every pair with its texts swapped."""
        return "reversed_input_ids" in self.inputs

    @property
    def reads_prompt_length(self) -> bool:
        """Whether the graph leaves prompts out of the pooling."""
        return PROMPT_LENGTH in self.inputs

    @property
    def reads_mask_position(self) -> bool:
        """Whether the graph predicts the word of one token of each row, and reads which."""
        return MASK_POSITION in self.inputs


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of `encort.json`.

    Attributes:
        format_version: Version of the format.
        heads: Heads of the bundle; `predict` uses the first one. Empty for an encoder without heads.
        embedding: Sentence embeddings; None: the model gives none.
        max_length: Most tokens of one input, special tokens included.
        sources: Origin of the weights, one per checkpoint.
        tools: Versions of the packages that made the bundle, by name.
        files: Files of the bundle by name, without the manifest.
        variants: Graphs of the bundle, the best choice of the exporter first.
        late_interaction: Vectors of tokens; None: the model gives none but its hidden states.
        sparse: Sparse embeddings; None: the model gives none.
    """

    format_version: int
    heads: list[HeadInfo]
    embedding: Embedding | None
    max_length: int
    sources: list[Source]
    tools: Mapping[str, str]
    files: Mapping[str, FileEntry]
    variants: list[Variant]
    late_interaction: LateInteraction | None = None
    sparse: Sparse | None = None

    def to_json(self) -> str:
        """Return the text of `encort.json`."""
        return dump_json(to_plain(self), indent=2) + "\n"

    @property
    def task(self) -> Task:
        """Task of `Model.predict`: the task of the first head, or feature extraction without heads."""
        return self.heads[0].task if self.heads else Task.FEATURE_EXTRACTION

    @property
    def prompts(self) -> Prompts:
        """Prompts of the sentence embeddings, or of the token vectors; none without either.

        Texts without a prompt are documents to a model whose token vectors need one.
        """
        if self.late_interaction is not None and self.late_interaction.prompts:
            return Prompts(self.late_interaction.prompts, DOCUMENT_NAMES[0])
        settings = self.sparse if self.embedding is None else self.embedding
        return Prompts() if settings is None else Prompts(settings.prompts, settings.default_prompt)
