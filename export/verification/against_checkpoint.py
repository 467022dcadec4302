"""Compare the variants of a bundle with its checkpoints, at export and again later."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encort.export.source.export_source import ExportSource
from encort.export.verification.cpu_attention import OpenSession, open_to_verify
from encort.export.verification.oracle import Oracle, TokenRange
from encort.export.verification.samples import texts_for
from encort.export.verification.verify import verify
from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import CONFIG_FILE, TOKENIZER_FILE, Fidelity, Task, Variant
from encort.runtime.common.errors import BundleError, CheckpointError
from encort.runtime.common.files import parse_json
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer


def verify_against_checkpoint(
    bundle: Bundle,
    checkpoint: str | Path | Sequence[str | Path],
    *,
    open_session: OpenSession = open_to_verify,
    progress: bool = False,
) -> list[tuple[Variant, Fidelity]]:
    """Measure a bundle's variants against its checkpoints in eager PyTorch on this machine, as an export does.

    Variants that need an instruction set which this processor lacks are left out.

    Args:
        bundle: Bundle to measure.
        checkpoint: The checkpoint, or all checkpoints, that the bundle was made from.
        open_session: Opens a variant. By default the CPU runs variants for GPUs too.
        progress: Show a progress bar on stderr.

    Returns:
        The measured variants with their fidelities.

    Raises:
        CheckpointError: A checkpoint cannot be used, or is not the exported one.
        FidelityError: Results differ by more than the tolerance.
    """
    manifest, embedding = bundle.manifest, bundle.manifest.embedding
    names = checkpoint_names(checkpoint)
    is_recorded = names == [recorded.model for recorded in manifest.sources]
    source = ExportSource.open(
        names,
        revisions=[recorded.revision for recorded in manifest.sources] if is_recorded else [],
        pooling=None if embedding is None else embedding.pooling,
        normalize=None if embedding is None else embedding.normalize,
        max_length=manifest.max_length,
        fills_masks=any(head.task is Task.FILL_MASK for head in manifest.heads),
        adapter=manifest.sources[0].adapter,
    )
    _check_same(bundle, source)
    tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=manifest.max_length)
    samples = source.tokenize(tokenizer, texts_for(source))
    variants = [variant for variant in manifest.variants if runs_here(variant)]
    fidelities = verify_variants(bundle, variants, source, samples, open_session=open_session, progress=progress)
    return list(zip(variants, fidelities, strict=True))


def verify_variants(
    bundle: Bundle,
    variants: Sequence[Variant],
    source: ExportSource,
    samples: TokenBatch,
    *,
    open_session: OpenSession = open_to_verify,
    progress: bool,
) -> list[Fidelity]:
    """Measure variants of a bundle against the source that it is made from.

    Args:
        bundle: Bundle with the variants' files.
        variants: Variants to measure.
        source: Checkpoints of the bundle.
        samples: Sample texts, tokenized with the bundle's tokenizer.
        open_session: Opens a variant. By default the CPU runs variants for GPUs too.
        progress: Show a progress bar on stderr.

    Returns:
        The measured fidelity of each variant.

    Raises:
        FidelityError: Results differ by more than the tolerance.
    """
    return verify(
        [(variant, open_session(bundle, variant)) for variant in variants],
        Oracle.of(source),
        samples,
        tokens=TokenRange.of(source),
        progress=progress,
    )


def checkpoint_names(checkpoint: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the names of one checkpoint or several as a list."""
    return [str(checkpoint)] if isinstance(checkpoint, str | Path) else [str(name) for name in checkpoint]


def _check_same(bundle: Bundle, source: ExportSource) -> None:
    """Refuse checkpoints that have other labels or settings than the exported ones."""
    names = ", ".join(checkpoint.name for checkpoint in source.checkpoints)
    # The name of a single head is its task; several heads are named after folders, which may have been renamed.
    exported_heads = [(head.task, head.labels, head.activation) for head in bundle.manifest.heads]
    if exported_heads != [(head.task, head.labels, head.activation) for head in source.heads]:
        raise CheckpointError(f"{names} has other heads or labels than the bundle: it is not the exported checkpoint")
    exported = _exported_settings(bundle)
    settings = json.loads(source.checkpoints[0].model.config.to_json_string())
    keys = {*exported, *settings} - {"transformers_version"}
    different = sorted(key for key in keys if exported.get(key) != settings.get(key))
    if different:
        raise CheckpointError(f"{names} is not the exported checkpoint: its config.json has another {different[0]}")


def _exported_settings(bundle: Bundle) -> dict[str, Any]:
    try:
        settings = parse_json(bundle.read(CONFIG_FILE))
    except ValueError as error:
        raise BundleError(f"{CONFIG_FILE} is not JSON ({error}); export the bundle again") from error
    if not isinstance(settings, dict):
        raise BundleError(f"{CONFIG_FILE} holds no settings; export the bundle again")
    return settings
