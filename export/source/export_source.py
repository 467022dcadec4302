"""The source of a bundle: one checkpoint, or several with the same encoder and one head each."""

import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from encort.export.graph.architectures import (
    ARCHITECTURES,
    describe_dual_encoder_head,
    describe_encoder,
    describe_head,
)
from encort.export.graph.description import Description, Encoder, VocabularyHead
from encort.export.source.checkpoint import Checkpoint
from encort.export.source.dual_encoder import MODEL_TYPE
from encort.export.source.embedding.torch_modules import describe_modules, output_size
from encort.export.source.model_card import ModelCard
from encort.export.source.retrieval.settings import RetrievalSettings
from encort.export.source.tokenizer_files import tokenizer_json
from encort.runtime.bundle.bundle import file_entries
from encort.runtime.bundle.manifest import (
    FORMAT_VERSION,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_WEIGHTS,
    Embedding,
    HeadInfo,
    Manifest,
    Pooling,
    Source,
    Task,
    Variant,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checkpoints.positions import count_positions
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.extras import installed_versions
from encort.runtime.common.output.escaping import as_unicode
from encort.runtime.text.masks import with_any_positions
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import LIMIT, Tokenizer

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions of ONNX Runtime; one of them is installed."""
TOOLS = ("encort", "torch", "transformers", "tokenizers", "onnx-ir", *RUNTIMES, "numpy")
"""Distributions that the manifest records, with their versions."""
TRACERS = ("onnxscript", "optimum-onnx")
"""Distributions that trace architectures without an authored graph; recorded for these alone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportSource:
    """Checkpoints, and the promises of the bundle that is made from them.

    Attributes:
        checkpoints: One checkpoint per head, or one encoder alone.
        heads: Heads as in the manifest, in the order of the checkpoints.
        embedding: Settings of sentence embeddings; None for a dual encoder, or a model of token vectors alone.
        description: Neutral description of the weights; None for an architecture without an authored graph.
        max_length: Largest number of tokens of one input.
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
        pooling: list[Pooling] | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        fills_masks: bool = False,
        adapter: str | None = None,
    ) -> "ExportSource":
        """Load the checkpoints.

        Args:
            names: Folders or hub ids.
            revisions: Commit, branch or tag of each hub id; may be shorter than `names`.
            pooling: Poolings of sentence embeddings; None takes them from the first checkpoint.
            normalize: Whether embeddings have length 1; None takes it from the first checkpoint.
            max_length: Largest number of tokens of one input; None takes the smallest limit of the checkpoints.
            fills_masks: Whether masked language models keep the head that predicts words.
            adapter: Name of the adapter in the checkpoint's own weights that is merged; None merges none of them.

        Raises:
            InputError: The checkpoint has no such adapter.
            CheckpointError: A checkpoint cannot be used, or their encoders or tokenizers differ.
        """
        checkpoints = tuple(
            Checkpoint.open(name, revision=revision, pooling=pooling, fills_masks=fills_masks, adapter=adapter)
            for name, revision in itertools.zip_longest(names, revisions)
        )
        _check_same_encoder(checkpoints)
        heads = _heads(checkpoints)
        if fills_masks and all(head.task is not Task.FILL_MASK for head in heads):
            raise CheckpointError(
                f"{', '.join(names)}: no masked language model, so it cannot fill masks; the architecture in its "
                "config.json would end in ForMaskedLM"
            )
        embedding = _embedding(checkpoints[0], normalize)
        description = _describe(checkpoints, heads)
        limit = _limit(checkpoints, description, max_length)
        return cls(checkpoints=checkpoints, heads=heads, embedding=embedding, description=description, max_length=limit)

    @property
    def is_pairwise(self) -> bool:
        """Whether every input must be a pair."""
        return self.checkpoints[0].architecture == MODEL_TYPE

    @property
    def retrieval(self) -> RetrievalSettings:
        """Token vectors and sparse embeddings of the first checkpoint."""
        return self.checkpoints[0].retrieval

    @property
    def tokenwise(self) -> set[str]:
        """Names of the outputs that hold a row per token instead of a row per text."""
        of_heads = {output for head in self.heads if head.task.is_tokenwise for output in head.outputs}
        return {*of_heads, TOKEN_EMBEDDINGS, TOKEN_WEIGHTS}

    def tokenize(self, tokenizer: Tokenizer, texts: Sequence[Text]) -> TokenBatch:
        """Return a batch of texts or pairs with every input that the graphs read. No text has a prompt."""
        pools_prompts = self.embedding is None or self.embedding.include_prompt
        batch = tokenizer(texts, reverse=self.is_pairwise, return_prompt_length=not pools_prompts)
        return with_any_positions(batch) if self.fills_masks else batch

    @property
    def fills_masks(self) -> bool:
        """Whether a head predicts masked words."""
        return any(head.task is Task.FILL_MASK for head in self.heads)

    def manifest(self, folder: Path, variants: Sequence[Variant]) -> Manifest:
        """Return the manifest of a bundle that consists of the files of `folder`."""
        tools = TOOLS if self.description is not None else (*TOOLS, *TRACERS)
        return Manifest(
            format_version=FORMAT_VERSION,
            heads=list(self.heads),
            embedding=self.embedding if any(SENTENCE_EMBEDDING in variant.outputs for variant in variants) else None,
            max_length=self.max_length,
            sources=self._sources,
            tools={"python": platform.python_version(), **installed_versions(tools)},
            files=file_entries(folder),
            variants=list(variants),
            late_interaction=self.retrieval.late_interaction,
            sparse=self.retrieval.sparse,
        )

    @cached_property
    def _sources(self) -> list[Source]:
        cards = [ModelCard.read(checkpoint.folder) for checkpoint in self.checkpoints]
        return [
            Source(
                model=as_unicode(checkpoint.name),
                architecture=checkpoint.architecture,
                revision=checkpoint.revision,
                license=card.license,
                base_model=card.base_model if checkpoint.revision is None else checkpoint.name,
                adapter=checkpoint.adapter,
            )
            for checkpoint, card in zip(self.checkpoints, cards, strict=True)
        ]


def _embedding(checkpoint: Checkpoint, normalize: bool | None) -> Embedding | None:
    if checkpoint.architecture == MODEL_TYPE or not checkpoint.retrieval.has_sentence_embedding:
        return None
    settings = checkpoint.embedding
    poolings = settings.poolings.methods
    if Pooling.POOLER in poolings and getattr(checkpoint.model.base_model, "pooler", None) is None:
        raise CheckpointError("the checkpoint has no pooler; pool by mean or cls (--pooling)")
    size = output_size(settings.modules, checkpoint.model.config.hidden_size * len(poolings))
    limit = settings.prompts.truncate_dim
    return Embedding(
        pooling=poolings,
        normalize=settings.normalize if normalize is None else normalize,
        prompts=settings.prompts.prompts,
        default_prompt=settings.prompts.default_prompt,
        include_prompt=settings.poolings.include_prompt,
        similarity=settings.prompts.similarity,
        # sentence-transformers takes a limit above the size for no limit.
        truncate_dim=None if limit is None or limit > size else limit,
    )


def _heads(checkpoints: Sequence[Checkpoint]) -> tuple[HeadInfo, ...]:
    """Return the heads with their names.

    The name of a single head is its task. Several heads are named after their checkpoints' folders, and the names of
    their outputs start with that name.
    """
    if len(checkpoints) == 1:
        (checkpoint,) = checkpoints
        is_encoder = checkpoint.task is Task.FEATURE_EXTRACTION
        return () if is_encoder else (_head(checkpoint, checkpoint.task.value, prefix=""),)
    names = [as_unicode(Path(checkpoint.name).resolve().name) for checkpoint in checkpoints]
    for checkpoint, name in zip(checkpoints, names, strict=True):
        if checkpoint.task is Task.FEATURE_EXTRACTION:
            raise CheckpointError(f"{checkpoint.name} has no head; each of several checkpoints must have one")
        if names.count(name) > 1:
            raise CheckpointError(f"two checkpoints are called {name!r}; rename a folder, it gives the head its name")
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
        aggregation=checkpoint.aggregation,
        tokens=checkpoint.tokens,
        threshold=checkpoint.threshold,
        null_threshold=checkpoint.null_threshold,
        activation=checkpoint.activation,
        mask=checkpoint.mask,
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
        modules=describe_modules(first.embedding.modules),
        retrieval=first.retrieval.describe(_words(first, encoders[0])),
        heads=tuple(
            describe_head(
                checkpoint.model.config,
                checkpoint.weights,
                head.task,
                encoders[0],
                outputs=tuple(head.outputs),
                prefix="" if len(heads) == 1 else f"{head.name}.",
            )
            for checkpoint, head in zip(checkpoints, heads, strict=False)
        ),
    )


def _words(checkpoint: Checkpoint, encoder: Encoder) -> VocabularyHead | None:
    """Return the head whose logits weigh words; None if the checkpoint has no such weights."""
    if checkpoint.retrieval.expansion is None:
        return None
    config, weights = checkpoint.model.config, checkpoint.weights
    head = describe_head(config, weights, Task.FILL_MASK, encoder, outputs=(SPARSE_EMBEDDING,))
    assert isinstance(head, VocabularyHead)
    return head


def _check_same_encoder(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse several checkpoints unless all have the first one's encoder, weight by weight, and its tokenizer."""
    if len(checkpoints) == 1:
        return
    for checkpoint in checkpoints:
        if checkpoint.architecture == MODEL_TYPE:
            raise CheckpointError(
                f"{checkpoint.name} has two encoders and shares none with other heads; export it alone"
            )
    first, *others = checkpoints
    expected = _encoder_weights(first)
    for other in others:
        _check_encoder_weights(first, expected, other)
        for name in _DECISIVE:
            if getattr(other.model.config, name, None) != getattr(first.model.config, name, None):
                raise CheckpointError(f"{other.name} has another encoder than {first.name} (its {name} differs)")
        if tokenizer_json(other, max_length=LIMIT) != tokenizer_json(first, max_length=LIMIT):
            raise CheckpointError(f"{other.name} has another tokenizer than {first.name}; export them apart")


def _check_encoder_weights(first: Checkpoint, expected: Mapping[str, FloatArray], other: Checkpoint) -> None:
    weights = _encoder_weights(other)
    # Some heads have a pooler of their own, and others have none.
    names = sorted(name for name in expected.keys() | weights.keys() if not name.startswith("pooler."))
    for name in names:
        if name not in weights or name not in expected or not np.array_equal(expected[name], weights[name]):
            raise CheckpointError(
                f"{other.name} has another encoder than {first.name} ({name} differs); several heads can share a "
                "bundle only if their encoder is the same: train them on one, or export them apart"
            )


_DECISIVE = (
    *("model_type", "hidden_act", "hidden_activation", "activation", "pad_token_id"),
    *("layer_norm_eps", "norm_eps", "rms_norm_eps"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
    # Layers that share weights may run other numbers of times.
    *("num_hidden_layers", "num_hidden_groups", "inner_group_num"),
    *("layer_types", "global_attn_every_n_layers", "local_attention"),
    *("rope_parameters", "rope_theta", "global_rope_theta", "local_rope_theta"),
    *("relative_attention", "pos_att_type", "position_buckets", "max_relative_positions", "share_att_key"),
)
"""Settings that change the results of an encoder with the same weights."""


def _encoder_weights(checkpoint: Checkpoint) -> Mapping[str, FloatArray]:
    return {name: tensor.float().numpy() for name, tensor in checkpoint.model.base_model.state_dict().items()}


def _limit(checkpoints: Sequence[Checkpoint], description: Description | None, max_length: int | None) -> int:
    """Return the largest number of tokens of one input."""
    tokenizer = checkpoints[0].tokenizer
    shortest = tokenizer.num_special_tokens_to_add() + 1
    limits = [checkpoint.max_length for checkpoint in checkpoints]
    if description is None:
        # Some of these architectures have no table of positions, so they have no limit of their own.
        positions = count_positions(checkpoints[0].model.config) or LIMIT - 1
    else:
        positions = min(encoder.max_length for encoder in description.encoders)
    limit = min(limit for limit in [*limits, positions] if limit) if max_length is None else max_length
    if limit == LIMIT - 1:
        raise CheckpointError(f"{checkpoints[0].name} has no limit of tokens; give one with --max-length")
    if not shortest <= limit <= positions:
        raise CheckpointError(
            f"max_length must be between {shortest} and the model's {positions} positions, got {limit}"
        )
    return limit
