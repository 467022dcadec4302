"""Reading `encort.json`, and the rules that a manifest must follow."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from encort.runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MASK_POSITION,
    POOLER_OUTPUT,
    PORTABLE,
    PROMPT_LENGTH,
    SENTENCE_EMBEDDING,
    Activation,
    Embedding,
    HeadInfo,
    Layout,
    Manifest,
    Task,
    Variant,
)
from encort.runtime.bundle.retrieval_rules import retrieval_problems
from encort.runtime.bundle.schema import SchemaError, from_plain
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.errors import BundleError, BundleVersionError
from encort.runtime.common.files import parse_json
from encort.runtime.common.tag_schemes import TagScheme, TagSchemeError

READ_VERSIONS = (3, FORMAT_VERSION)
"""Format versions that are read. In version 3, an embedding has one pooling and no prompts."""
_ACTIVATIONS: Mapping[Task, Collection[Activation]] = {
    Task.TEXT_REGRESSION: (Activation.IDENTITY, Activation.SIGMOID, Activation.TANH),
    Task.TEXT_CLASSIFICATION: (Activation.IDENTITY, Activation.SOFTMAX),
    Task.MULTI_LABEL_CLASSIFICATION: (Activation.IDENTITY, Activation.SIGMOID),
}
"""Activations that the head of a task may have."""
_VECTORS = frozenset({POOLER_OUTPUT, SENTENCE_EMBEDDING})

_LAYOUT_INPUTS: Mapping[Layout, Mapping[str, list[str]]] = {
    Layout.EQUAL_LENGTH: {},
    Layout.RAGGED: {"attention_mask": ["batch", "sequence"]},
    Layout.PADDED: {"attention_mask": ["batch", "sequence"]},
    Layout.EXPANDED: {"attention_mask": ["batch", "sequence"]},
    Layout.PACKED: {"position_ids": ["tokens"], "token_offset": ["batch", "sequence"], "cu_seqlens": ["bounds"]},
}
"""Axes of the inputs that tell a graph of a layout where texts begin and end."""


def read_manifest(text: str) -> Manifest:
    """Read the text of `encort.json`.

    Raises:
        BundleVersionError: The format is newer or older than this encort reads.
        BundleError: The text is not JSON, or a field is missing, unknown, or has the wrong type.
    """
    try:
        plain = parse_json(text)
    except ValueError as error:
        raise BundleError(f"{MANIFEST_FILE} is not JSON ({error}); export the bundle again") from error
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if version not in READ_VERSIONS:
        known = " and ".join(map(str, READ_VERSIONS))
        raise BundleVersionError(
            f"{MANIFEST_FILE} has format_version {version!r}, this encort reads {known}; "
            "export the bundle again, or install the encort that made it"
        )
    try:
        manifest = from_plain(Manifest, _with_poolings(_with_aggregations(plain)))
    except SchemaError as error:
        raise BundleError(f"{MANIFEST_FILE}: {error}; export the bundle again") from error
    for problem in _problems(manifest):
        raise BundleError(f"{MANIFEST_FILE}: {problem}; export the bundle again")
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with the manifest: duplicate names, or outputs that do not fit the heads."""
    names = [head.name for head in manifest.heads]
    if len(set(names)) < len(names):
        yield "two heads have one name"
    variants = [variant.name for variant in manifest.variants]
    if len(set(variants)) < len(variants):
        yield "two variants have one name"
    for head in manifest.heads:
        yield from _head_problems(head)
    if manifest.embedding is not None:
        yield from _embedding_problems(manifest.embedding)
    if manifest.sparse is not None and manifest.sparse.default_prompt not in (None, *manifest.sparse.prompts):
        yield f"sparse.default_prompt {manifest.sparse.default_prompt!r} is none of the prompts"
    pools_prompts = manifest.embedding is None or manifest.embedding.include_prompt
    for variant in manifest.variants:
        yield from _input_problems(variant, manifest.heads, pools_prompts=pools_prompts)
        for head in manifest.heads:
            if any(not _has_logits_axes(head, variant, variant.outputs.get(name)) for name in head.outputs):
                yield f"the {len(head.labels)} labels of {head.name} do not name the logits of {variant.name}"
        for name in _VECTORS & variant.outputs.keys():
            if len(variant.outputs[name]) != 2 or not variant.outputs[name][1].isdecimal():
                yield f"{name} of {variant.name} has no size"
        yield from _dimension_problems(manifest.embedding, variant)
        yield from retrieval_problems(manifest, variant)


def _embedding_problems(embedding: Embedding) -> Iterator[str]:
    """Yield what is wrong with the settings of embeddings by themselves."""
    if not embedding.pooling:
        yield "embedding.pooling is empty; it names at least one pooling"
    if embedding.default_prompt is not None and embedding.default_prompt not in embedding.prompts:
        yield f"embedding.default_prompt {embedding.default_prompt!r} is none of the prompts"


def _dimension_problems(embedding: Embedding | None, variant: Variant) -> Iterator[str]:
    """Yield that `truncate_dim` does not fit the size of a variant's embeddings."""
    limit, axes = None if embedding is None else embedding.truncate_dim, variant.outputs.get(SENTENCE_EMBEDDING)
    if limit is not None and axes is not None and not 1 <= limit <= int(axes[1]):
        yield f"embedding.truncate_dim is {limit}, not between 1 and the {axes[1]} values of {variant.name}"


def _input_problems(variant: Variant, heads: Collection[HeadInfo], *, pools_prompts: bool) -> Iterator[str]:
    """Yield what is wrong with the inputs of a graph: unknown or missing names, or axes of another layout."""
    rows = ["tokens"] if variant.layout is Layout.PACKED else ["batch", "sequence"]
    needed = {"input_ids": rows, **_LAYOUT_INPUTS[variant.layout]}
    if "reversed_token_type_ids" in variant.inputs:
        needed["reversed_input_ids"] = rows
    if SENTENCE_EMBEDDING in variant.outputs and not pools_prompts:
        needed[PROMPT_LENGTH] = ["batch"]
    if variant.name != PORTABLE and any(head.task is Task.FILL_MASK for head in heads):
        needed[MASK_POSITION] = ["batch"]
    known = needed | dict.fromkeys(["token_type_ids", "reversed_input_ids", "reversed_token_type_ids"], rows)
    if unknown := variant.inputs.keys() - known:
        yield f"{variant.name} reads {', '.join(sorted(unknown))}, unlike a graph of layout {variant.layout}"
    if missing := needed.keys() - variant.inputs.keys():
        yield f"{variant.name} does not read {', '.join(sorted(missing))}, unlike a graph of layout {variant.layout}"
    for name, axes in variant.inputs.items():
        if name in known and axes != known[name]:
            yield f"{name} of {variant.name} has axes {axes}, and {known[name]} in layout {variant.layout}"


def _with_aggregations(plain: Any) -> Any:
    """Return the content of a manifest with `aggregation` in place of `tags_words`, which encort 0.1 wrote."""
    heads = plain.get("heads")
    for head in heads if isinstance(heads, list) else []:
        if isinstance(head, dict) and head.pop("tags_words", True) is False:
            head["aggregation"] = Aggregation.SIMPLE.value
    return plain


def _with_poolings(plain: Any) -> Any:
    """Return the content of a manifest in the current format: version 3 has one pooling in place of a list."""
    if plain["format_version"] == FORMAT_VERSION or type(plain["format_version"]) is not int:
        return plain
    embedding = plain.get("embedding")
    if isinstance(embedding, dict) and isinstance(embedding.get("pooling"), str):
        plain = {**plain, "embedding": {**embedding, "pooling": [embedding["pooling"]]}}
    return {**plain, "format_version": FORMAT_VERSION}


def _head_problems(head: HeadInfo) -> Iterator[str]:
    """Yield what is wrong with a head: its labels, its number of outputs, its activation, or a threshold."""
    if len(set(head.labels)) < len(head.labels):
        yield f"two labels of {head.name} have one name"
    if not _fits(head):
        yield f"head {head.name} cannot have {len(head.labels)} labels and {len(head.outputs)} outputs"
    if (head.mask is None) == (head.task is Task.FILL_MASK):
        yield f"head {head.name} has the mask token {head.mask}, and its task is {head.task}"
    if not 0 < head.threshold < 1:
        yield f"threshold of {head.name} is {head.threshold}, not between 0 and 1"
    if not math.isfinite(head.null_threshold):
        yield f"null_threshold of {head.name} is {head.null_threshold}, not a finite number"
    if head.activation is not None and head.activation not in _ACTIVATIONS.get(head.task, ()):
        yield f"head {head.name} cannot have the activation {head.activation}"
    if head.task is Task.TOKEN_CLASSIFICATION:
        try:
            TagScheme(head.labels)
        except TagSchemeError as error:
            yield f"{head.name}: {error}"


def _fits(head: HeadInfo) -> bool:
    """Return whether the head has the number of labels and outputs that its task needs."""
    if head.task is Task.QUESTION_ANSWERING:
        return not head.labels and len(head.outputs) == 2
    if head.task is Task.FILL_MASK:
        return not head.labels and len(head.outputs) == 1
    if head.task is Task.TEXT_REGRESSION:
        return len(head.labels) == 1 and len(head.outputs) == 1
    return head.task is not Task.FEATURE_EXTRACTION and bool(head.labels) and len(head.outputs) == 1


def _has_logits_axes(head: HeadInfo, variant: Variant, axes: list[str] | None) -> bool:
    """Return whether an output of a head has the axes that it must have in a variant."""
    tokens = ["tokens"] if variant.layout is Layout.PACKED else ["batch", "sequence"]
    if head.task is Task.FILL_MASK:
        rows = tokens if variant.name == PORTABLE else ["batch"]
        return axes is not None and axes[:-1] == rows and axes[-1].isdecimal()
    rows = tokens if head.task.is_tokenwise else ["batch"]
    return axes == ([*rows, str(len(head.labels))] if head.labels else rows)
