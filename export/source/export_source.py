"""What is exported: one checkpoint, or several that have one encoder and a head each."""

import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encort.export.graph.architectures import (
    ARCHITECTURES,
    describe_dual_encoder_head,
    describe_encoder,
    describe_head,
)
from encort.export.graph.description import Description
from encort.export.source.checkpoint import Checkpoint
from encort.export.source.dual_encoder import MODEL_TYPE
from encort.export.verification.oracle import Oracle, TokenRange
from encort.export.verification.samples import sample_pairs, sample_texts
from encort.runtime.bundle.bundle import file_entries
from encort.runtime.bundle.manifest import (
    FORMAT_VERSION,
    SENTENCE_EMBEDDING,
    Embedding,
    HeadInfo,
    Manifest,
    Pooling,
    Source,
    Task,
    Variant,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.extras import installed_versions
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import LIMIT

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""One of them is installed."""
TOOLS = ("encort", "torch", "transformers", "tokenizers", "onnx-ir", "optimum-onnx", *RUNTIMES, "numpy")


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportSource:
    """Checkpoints, and what a bundle promises of them.

    Attributes:
        checkpoints: One a head, or one encoder alone.
        heads: As the manifest has them, in the order of the checkpoints.
        embedding: How sentence embeddings are made; None for two encoders.
        description: The same weights, named neutrally; None for an architecture outside of the table.
        max_length: Most tokens of one input.
    """

    checkpoints: tuple[Checkpoint, ...]
    heads: tuple[HeadInfo, ...]
    embedding: Embedding | None
    description: Description | None
    max_length: int

    @classmethod
    def open(
        cls,
        names: Sequence[str],
        *,
        revisions: Sequence[str | None] = (),
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
    ) -> "ExportSource":
        """Load checkpoints.

        Args:
            names: Folders or hub ids.
            revisions: Commit, branch or tag of each hub id; nothing where there is none to name.
            pooling: Of sentence embeddings; None takes the first checkpoint's.
            normalize: Whether embeddings have length 1; None as above.
            max_length: Most tokens of one input; None takes the smallest of the checkpoints' limits.

        Raises:
            CheckpointError: One cannot be used, or they have different encoders or tokenizers.
        """
        checkpoints = tuple(
            Checkpoint.open(name, revision=revision, pooling=pooling)
            for name, revision in itertools.zip_longest(names, revisions)
        )
        _check_one_encoder(checkpoints)
        heads, embedding = _heads(checkpoints), None
        if checkpoints[0].architecture != MODEL_TYPE:
            wanted = checkpoints[0].embedding
            embedding = Embedding(
                pooling=wanted.pooling, normalize=wanted.normalize if normalize is None else normalize
            )
            if wanted.pooling is Pooling.POOLER and getattr(checkpoints[0].model.base_model, "pooler", None) is None:
                raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
        description = _describe(checkpoints, heads)
        limit = _limit(checkpoints, description, max_length)
        return cls(checkpoints=checkpoints, heads=heads, embedding=embedding, description=description, max_length=limit)

    @property
    def oracle(self) -> Oracle:
        return Oracle(self.checkpoints, self.heads, self.embedding)

    @property
    def is_pairwise(self) -> bool:
        """Whether every input must be a pair."""
        return self.checkpoints[0].architecture == MODEL_TYPE

    @property
    def samples(self) -> list[Text]:
        """The built-in texts that fit the model."""
        return [*([] if self.is_pairwise else sample_texts()), *sample_pairs()]

    @property
    def tokenwise(self) -> set[str]:
        """Outputs of the heads that have a row a token and not a row a text."""
        return {output for head in self.heads if head.task.is_tokenwise for output in head.outputs}

    @property
    def token_range(self) -> TokenRange:
        """What random inputs may hold."""
        configs = self.checkpoints[0].encoder_configs.values()
        return TokenRange(
            length=self.max_length,
            ids=min(config.vocab_size for config in configs),
            types=min(getattr(config, "type_vocab_size", 1) or 1 for config in configs),
        )

    def manifest(self, folder: Path, variants: Sequence[Variant]) -> Manifest:
        """What a bundle says that consists of the files of `folder`."""
        return Manifest(
            format_version=FORMAT_VERSION,
            heads=list(self.heads),
            embedding=self.embedding if any(SENTENCE_EMBEDDING in variant.outputs for variant in variants) else None,
            max_length=self.max_length,
            sources=[
                Source(model=source.name, architecture=source.architecture, revision=source.revision)
                for source in self.checkpoints
            ],
            tools={"python": platform.python_version(), **installed_versions(TOOLS)},
            files=file_entries(folder),
            variants=list(variants),
        )


def _heads(checkpoints: Sequence[Checkpoint]) -> tuple[HeadInfo, ...]:
    """A head's name is its task, or of several its checkpoint's folder, which then begins its outputs' names."""
    if len(checkpoints) == 1:
        (checkpoint,) = checkpoints
        is_encoder = checkpoint.task is Task.FEATURE_EXTRACTION
        return () if is_encoder else (_head(checkpoint, checkpoint.task.value, prefix=""),)
    names = [Path(checkpoint.name).resolve().name for checkpoint in checkpoints]
    for checkpoint, name in zip(checkpoints, names, strict=True):
        if checkpoint.task is Task.FEATURE_EXTRACTION:
            raise CheckpointError(f"{checkpoint.name} has no head; of several checkpoints each brings one")
        if names.count(name) > 1:
            raise CheckpointError(f"two checkpoints are called {name!r}; rename a folder: it names the head")
    return tuple(
        _head(checkpoint, name, prefix=f"{name}.") for checkpoint, name in zip(checkpoints, names, strict=True)
    )


def _head(checkpoint: Checkpoint, name: str, *, prefix: str) -> HeadInfo:
    outputs = ["start_logits", "end_logits"] if checkpoint.task is Task.QUESTION_ANSWERING else ["logits"]
    return HeadInfo(
        name=name,
        task=checkpoint.task,
        labels=checkpoint.labels,
        outputs=[f"{prefix}{output}" for output in outputs],
        tags_words=checkpoint.tags_words,
    )


def _describe(checkpoints: Sequence[Checkpoint], heads: Sequence[HeadInfo]) -> Description | None:
    first = checkpoints[0]
    configs, weights = first.encoder_configs, first.weights
    if any(config.model_type not in ARCHITECTURES for config in configs.values()):
        return None
    encoders = tuple(describe_encoder(config, weights, prefix=prefix) for prefix, config in configs.items())
    if first.architecture == MODEL_TYPE:
        return Description(encoders=encoders, heads=(describe_dual_encoder_head(weights),))
    return Description(
        encoders=encoders,
        heads=tuple(
            describe_head(
                checkpoint.model.config,
                checkpoint.weights,
                head.task,
                outputs=tuple(head.outputs),
                prefix="" if len(heads) == 1 else f"{head.name}.",
            )
            for checkpoint, head in zip(checkpoints, heads, strict=False)
        ),
    )


def _check_one_encoder(checkpoints: Sequence[Checkpoint]) -> None:
    """Every checkpoint has the first one's encoder, weight by weight, and its tokenizer."""
    first = checkpoints[0]
    if len(checkpoints) == 1:
        return
    for checkpoint in checkpoints:
        if checkpoint.architecture == MODEL_TYPE:
            raise CheckpointError(f"{checkpoint.name} has two encoders, so it has no head for others; export it alone")
    expected = _encoder_weights(first)
    for other in checkpoints[1:]:
        found = _encoder_weights(other)
        # A pooler belongs to some heads only.
        names = sorted(name for name in expected.keys() | found.keys() if not name.startswith("pooler."))
        for name in names:
            if name not in found or name not in expected or not np.array_equal(expected[name], found[name]):
                raise CheckpointError(
                    f"{other.name} has another encoder than {first.name} ({name} differs); several heads can share a "
                    "bundle only if their encoder is the same: train them on one, or export them apart"
                )
        for name in _DECISIVE:
            if getattr(other.model.config, name, None) != getattr(first.model.config, name, None):
                raise CheckpointError(f"{other.name} has another encoder than {first.name} (its {name} differs)")
        if tokenizer_json(other) != tokenizer_json(first):
            raise CheckpointError(f"{other.name} has another tokenizer than {first.name}; export them apart")


_DECISIVE = ("model_type", "hidden_act", "activation", "num_attention_heads", "layer_norm_eps", "pad_token_id")
"""Settings that change what the same weights compute."""


def tokenizer_json(checkpoint: Checkpoint) -> str:
    """The tokenizer without the padding and truncation that its last use has left in it."""
    backend = checkpoint.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())


def _encoder_weights(checkpoint: Checkpoint) -> Mapping[str, FloatArray]:
    return {name: tensor.float().numpy() for name, tensor in checkpoint.model.base_model.state_dict().items()}


def _limit(checkpoints: Sequence[Checkpoint], description: Description | None, asked: int | None) -> int:
    tokenizer = checkpoints[0].tokenizer
    shortest = tokenizer.num_special_tokens_to_add() + 1
    limits = [checkpoint.max_length for checkpoint in checkpoints]
    if description is None:
        # Some have no table of positions, hence no limit of their own.
        positions = getattr(checkpoints[0].model.config, "max_position_embeddings", None) or LIMIT - 1
    else:
        positions = min(encoder.embeddings.max_length for encoder in description.encoders)
    limit = min(limit for limit in [*limits, positions] if limit) if asked is None else asked
    if limit == LIMIT - 1:
        raise CheckpointError(f"{checkpoints[0].name} names no limit of its inputs; give one with --max-length")
    if not shortest <= limit <= positions:
        raise CheckpointError(
            f"max_length must be between {shortest} and the model's {positions} positions, got {limit}"
        )
    return limit
