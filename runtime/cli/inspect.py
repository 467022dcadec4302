"""The command `encort inspect`: what a bundle is, without running it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from encort.runtime.cli.options import BUNDLE, add_options
from encort.runtime.common.output.escaping import printable
from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.bundle.manifest import Embedding, Fidelity, HeadInfo, Manifest, Source, Variant


@click.command()
@add_options(BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def inspect(bundle: str, as_json: bool) -> None:
    """Show heads, limits and certificates of BUNDLE."""
    from encort.runtime.cli.streams import check_stdout
    from encort.runtime.hub.download import open_bundle

    check_stdout()
    manifest = open_bundle(bundle, files=lambda _: ()).manifest
    echo(manifest.to_json().rstrip() if as_json else _summary(manifest))


def _summary(manifest: "Manifest") -> str:
    rows: list[tuple[str, object]] = [("task", manifest.task)]
    rows += [(head.name, f"{head.task}, {_shortened(head.labels)}{_settings(head)}") for head in manifest.heads]
    if manifest.embedding is not None:
        rows += _embedding_rows(manifest.embedding, manifest.variants)
    rows += _retrieval_rows(manifest)
    rows.append(("max length", f"{manifest.max_length} tokens"))
    rows += [("source", _source(source)) for source in manifest.sources]
    rows.append(("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())))
    for variant in manifest.variants:
        rows.append((variant.name, f"{variant.device}, {variant.precision}, {variant.layout}: {variant.file}"))
        if variant.is_native:
            rows.append(("", _kernels_line()))
        if variant.fidelity is not None:
            rows += [("", line) for line in _fidelity_lines(variant.fidelity)]
        texts = variant.calibration
        if texts is not None and texts.mean_cosine is not None:
            cosine = f"mean {texts.mean_cosine:.5f}, min {texts.min_cosine:.5f}"
            rows.append(("", f"cosine to fp32 over {texts.judged} calibration texts that were held back: {cosine}"))
    lines = [(printable(name), printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _embedding_rows(embedding: "Embedding", variants: "Sequence[Variant]") -> "Iterator[tuple[str, str]]":
    from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING

    norm = "L2 normalized" if embedding.normalize else "not normalized"
    yield "embedding", f"{' + '.join(embedding.pooling)} pooling, {norm}, {embedding.similarity} similarity"
    sizes = [int(variant.outputs[variant.vector][-1]) for variant in variants if SENTENCE_EMBEDDING in variant.outputs]
    if sizes:
        cut = "" if embedding.truncate_dim is None else f", of which callers get {embedding.truncate_dim}"
        yield "dimensions", f"{sizes[0]}{cut}"
    if embedding.space is not None:
        yield "space", f"{embedding.space}, which exports of this model share (encort compat)"
    for name, text in embedding.prompts.items():
        default = ", the default" if name == embedding.default_prompt else ""
        yield f"prompt {name}", f'"{text}"{default}'
    if embedding.prompts and not embedding.include_prompt:
        yield "", "tokens of prompts are not pooled"


def _kernels_line() -> str:
    from encort.runtime.bundle.kernels import KERNELS, kernels_instruction_set

    found = kernels_instruction_set()
    if not found:
        return f"not used on this machine: {KERNELS} is not installed, or knows no instruction set of the processor"
    return f"computed by {KERNELS}, on this machine with {found}"


def _retrieval_rows(manifest: "Manifest") -> "Iterator[tuple[str, str]]":
    from encort.runtime.bundle.manifest import SPARSE_EMBEDDING, TOKEN_EMBEDDINGS

    outputs = {name: axes for variant in manifest.variants for name, axes in variant.outputs.items()}
    if manifest.late_interaction is not None and TOKEN_EMBEDDINGS in outputs:
        yield "token vectors", f"{outputs[TOKEN_EMBEDDINGS][-1]} dimensions, L2 normalized, compared by MaxSim"
        for name, prompt in manifest.late_interaction.prompts.items():
            expansion = "" if prompt.expansion is None else ", filled up with mask tokens"
            yield f"read as {name}", f"up to {prompt.max_length} tokens{expansion}"
    if manifest.sparse is not None:
        words = outputs.get(SPARSE_EMBEDDING)
        yield "sparse", "weights of the text's tokens" if words is None else f"weights of {words[-1]} words"


def _fidelity_lines(fidelity: "Fidelity") -> "Iterator[str]":
    errors = ", ".join(f"{name} {error:.1e}" for name, error in fidelity.max_abs_error.items())
    yield f"largest difference to eager PyTorch over {fidelity.cases} batches: {errors}"
    flips = "" if fidelity.label_flips is None else f", {fidelity.label_flips} label flips"
    yield f"cosine over {fidelity.texts} texts: mean {fidelity.mean_cosine:.5f}, min {fidelity.min_cosine:.5f}{flips}"
    yield f"largest change of a text with its neighbours: {fidelity.batch_difference:.1e}"
    if fidelity.metric is not None:
        metric = fidelity.metric
        yield f"{metric.name} {metric.before:.2f} before, {metric.after:.2f} after ({metric.examples} examples)"


def _settings(head: "HeadInfo") -> str:
    threshold = "" if head.threshold == 0.5 else f", threshold {head.threshold:.3f}"
    return f"{threshold}, aggregation {head.aggregation}" if head.task == "token-classification" else threshold


def _source(source: "Source") -> str:
    adapter = "" if source.adapter is None else f", with adapter {source.adapter}"
    return f"{source.model} ({source.architecture}{adapter})"


def _shortened(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:4])
    return f"{len(labels)} labels: {shown}{', …' if len(labels) > 4 else ''}" if labels else "no labels"
