"""The whole walk from a checkpoint to a verified bundle."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encort.export.evaluation import Evaluation
from encort.export.graph.architectures import ARCHITECTURES
from encort.export.int8.calibration import Calibration, check_calibration
from encort.export.int8.model import fit_int8
from encort.export.int8.search import QuantizationSearch, search
from encort.export.portable import write_portable
from encort.export.source.export_source import ExportSource, tokenizer_json
from encort.export.variants import BY_DEFAULT, CUDA, VariantKind, write_cuda, write_fp32, write_int8
from encort.export.verification.cpu_attention import OpenSession, open_to_verify
from encort.export.verification.oracle import Case
from encort.export.verification.verify import verify
from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.cpu import VNNI, cpu_name, has_instruction_set
from encort.runtime.bundle.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    LAST_HIDDEN_STATE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Fidelity,
    Pooling,
    Variant,
)
from encort.runtime.common.errors import CheckpointError, FidelityError, InputError
from encort.runtime.common.folders import check_replaceable, new_folder
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden import Golden

log = logging.getLogger("encort")


def export_bundle(
    checkpoint: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    variants: Collection[VariantKind] | None = None,
    calibration: Sequence[Text] | None = None,
    evaluation: str | Path | None = None,
    evaluation_columns: Mapping[str, str] | None = None,
    evaluation_header: Sequence[str] | None = None,
    max_drop: float = 0.5,
    weight_bits: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Bundle:
    """Export a checkpoint, verify it against eager PyTorch, and only then leave a bundle.

    Args:
        checkpoint: Folder in Hugging Face layout with safetensors, or a hub id. Several, with one encoder and a head
            each, make a bundle that runs the encoder once for any of its heads; a head's name is then its folder's.
        output: Folder to make.
        revision: Commit, branch or tag of a hub id.
        pooling: Of sentence embeddings; None takes what the checkpoint's sentence-transformers files say,
            otherwise the mean.
        normalize: Whether embeddings have length 1; None as above, otherwise true.
        max_length: Most tokens of one input; None takes the checkpoint's limit.
        variants: Graphs to make; None makes all that the model allows.
        calibration: Texts or pairs as they will be served, a few hundred, that 8-bit ranges are chosen on; None takes
            fifty built-in ones.
        evaluation: File of labelled data, as `encort train` reads it. The fastest graph that loses at most `max_drop`
            becomes the bundle's first choice; what was tried is kept in `search.json`, `search.md` and `search.svg`.
        evaluation_columns: Names of its columns by role, such as `{"text": "message"}`, in place of the conventions;
            see `Evaluation.read`.
        evaluation_header: Names of its columns, for a .csv or .tsv file that does not begin with them.
        max_drop: Points of the task's metric that 8 bits may lose.
        weight_bits: Of 8-bit graphs: 8 for processors with VNNI, 7 for those without; None takes this one's.
        overwrite: Replace an earlier bundle.
        progress: Show bars on stderr.

    Raises:
        CheckpointError: The checkpoint cannot be used; the message says what is wrong with it.
        DatasetError: The labelled data cannot be used.
        InputError: Too few calibration texts, or an option out of its range.
        FidelityError: Results differ from eager PyTorch past the tolerance; nothing was left behind.
        OutputExistsError: `output` exists.
    """
    _check_options(variants, calibration, max_drop, weight_bits)
    names = _names(checkpoint)
    if revision is not None and len(names) > 1:
        raise InputError("one revision cannot name several checkpoints; give folders, or export them apart")
    output = Path(output)
    check_replaceable(output, marker=MANIFEST_FILE, overwrite=overwrite)
    trained = ExportSource.open(
        names,
        revisions=[] if revision is None else [revision],
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
    )
    kinds = _kinds(trained, variants)
    if VariantKind.INT8 not in kinds and (evaluation or calibration or weight_bits):
        raise InputError("calibration, evaluation and weight bits are for an 8-bit graph, and none will be made")
    if evaluation is not None and len(trained.heads) > 1:
        raise InputError("labelled data of one head cannot choose a graph for all; export without --evaluation")
    if evaluation is None and (evaluation_columns or evaluation_header):
        raise InputError("--evaluation-column and --evaluation-header are for labelled data; give it with --evaluation")
    wanted = _Wanted(
        kinds=kinds,
        is_explicit=variants is not None,
        calibration=calibration,
        evaluation=(
            None
            if evaluation is None
            else Evaluation.read(
                Path(evaluation),
                next(iter(trained.heads), None),
                columns=evaluation_columns,
                header=evaluation_header,
            )
        ),
        max_drop=max_drop,
        weight_bits=weight_bits or (8 if has_instruction_set(VNNI) else 7),
        progress=progress,
    )
    with new_folder(output, marker=MANIFEST_FILE, overwrite=overwrite) as folder:
        samples = _write_tokenizer(trained, folder)
        _write_golden(trained, samples, folder)
        written, found = _write_variants(trained, folder, wanted)
        draft = _write_manifest(trained, folder, written)
        fidelities = _verify(draft, written, trained, samples, progress=progress)
        metrics = [None if found is None else found.certificate(variant, written) for variant in written]
        proven = [
            replace(variant, fidelity=replace(fidelity, metric=metric))
            for variant, fidelity, metric in zip(written, fidelities, metrics, strict=True)
        ]
        _write_manifest(trained, folder, proven)
    return Bundle.open(output)


def verify_against_checkpoint(
    bundle: Bundle,
    checkpoint: str | Path | Sequence[str | Path],
    *,
    open_session: OpenSession = open_to_verify,
    progress: bool = False,
) -> list[tuple[Variant, Fidelity]]:
    """Measure a bundle's variants against its checkpoints in eager PyTorch on this machine, as export does.

    Variants for an instruction set that this processor lacks are left out.

    Args:
        open_session: Opens a variant; otherwise the CPU stands in for devices.

    Raises:
        CheckpointError: A checkpoint cannot be used, or is not what was exported.
        FidelityError: Results differ past the tolerance.
    """
    manifest, embedding = bundle.manifest, bundle.manifest.embedding
    names = _names(checkpoint)
    is_source = names == [source.model for source in manifest.sources]
    trained = ExportSource.open(
        names,
        revisions=[source.revision for source in manifest.sources] if is_source else [],
        pooling=None if embedding is None else embedding.pooling,
        normalize=None if embedding is None else embedding.normalize,
        max_length=manifest.max_length,
    )
    _check_same(bundle, trained)
    tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=manifest.max_length)
    samples = tokenizer(trained.samples, reverse=trained.is_pairwise)
    variants = [variant for variant in manifest.variants if runs_here(variant)]
    found = _verify(bundle, variants, trained, samples, open_session=open_session, progress=progress)
    return list(zip(variants, found, strict=True))


def _names(checkpoint: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(checkpoint)] if isinstance(checkpoint, str | Path) else [str(each) for each in checkpoint]


def _check_same(bundle: Bundle, trained: ExportSource) -> None:
    names = ", ".join(checkpoint.name for checkpoint in trained.checkpoints)
    # The name of a single head is its task; of several, that of its folder, which may have been renamed.
    exported_heads = [(head.task, head.labels) for head in bundle.manifest.heads]
    if exported_heads != [(head.task, head.labels) for head in trained.heads]:
        raise CheckpointError(f"{names} has other labels than the bundle: it is not what was exported")
    exported = json.loads(bundle.path(CONFIG_FILE).read_text(encoding="utf-8"))
    settings = json.loads(trained.checkpoints[0].model.config.to_json_string())
    keys = {*exported, *settings} - {"transformers_version"}
    different = sorted(key for key in keys if exported.get(key) != settings.get(key))
    if different:
        raise CheckpointError(f"{names} is not what was exported: its config.json has another {different[0]}")


def _write_tokenizer(trained: ExportSource, folder: Path) -> TokenBatch:
    """Write the tokenizer without padding and truncation of its own, and tokenize the samples with it."""
    source = trained.checkpoints[0]
    (folder / TOKENIZER_FILE).write_text(tokenizer_json(source), encoding="utf-8")
    source.model.config.to_json_file(folder / CONFIG_FILE)
    texts = trained.samples
    samples = Tokenizer(folder / TOKENIZER_FILE, max_length=trained.max_length)(texts, reverse=trained.is_pairwise)
    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    limits = {"truncation": True, "max_length": trained.max_length}
    expected = [source.tokenizer(text, other, **limits)["input_ids"] for text, other in pairs]
    if samples.ids.tolist() != [token for ids in expected for token in ids]:
        raise CheckpointError(f"{source.name}: its tokenizer.json gives other ids than transformers; save it again")
    return samples


def _write_golden(trained: ExportSource, samples: TokenBatch, folder: Path) -> None:
    oracle = trained.oracle
    expected = [oracle(Case("golden", samples.rows(np.array([index])))) for index in range(len(samples))]
    # Hidden states would be most of the bundle; every other output depends on them.
    names = [name for name in expected[0] if name != LAST_HIDDEN_STATE]
    outputs = {
        # Without the axis of texts, tokens of all texts can follow each other.
        name: np.concatenate([row[name][0] if name in trained.tokenwise else row[name] for row in expected])
        for name in names
    }
    Golden(texts=samples.texts, ids=samples.ids, outputs=outputs).save(folder / GOLDEN_FILE)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Wanted:
    """What the caller wants made; see `export_bundle`."""

    kinds: Sequence[VariantKind]
    is_explicit: bool
    calibration: Sequence[Text] | None
    evaluation: Evaluation | None
    max_drop: float
    weight_bits: int
    progress: bool


def _check_options(
    variants: Collection[VariantKind] | None,
    calibration: Sequence[Text] | None,
    max_drop: float,
    weight_bits: int | None,
) -> None:
    if variants is not None and not (variants and set(variants) <= set(VariantKind)):
        raise InputError(f"variants must be some of {', '.join(VariantKind)}; got {', '.join(variants) or 'none'}")
    if weight_bits not in (None, 7, 8):
        raise InputError(f"weight_bits must be 7 or 8, got {weight_bits}")
    if weight_bits == 8 and not has_instruction_set(VNNI):
        raise InputError(f"8-bit weights need {VNNI} to be verified, and {cpu_name()} lacks it; use --weight-bits 7")
    if not 0 <= max_drop <= 100:
        raise InputError(f"max_drop must be between 0 and 100 points, got {max_drop}")
    if calibration is not None:
        check_calibration(calibration)


def _kinds(trained: ExportSource, asked: Collection[VariantKind] | None) -> list[VariantKind]:
    """What to make: what was asked for, or all that the model allows."""
    source = trained.checkpoints[0]
    if trained.description is None:
        if asked is not None and set(asked) != {VariantKind.PORTABLE}:
            raise CheckpointError(
                f"architecture {source.architecture!r} has no authored graph, only the variant {VariantKind.PORTABLE}; "
                f"encort authors: {', '.join(ARCHITECTURES)}"
            )
        log.warning(
            "%s: architecture %r has no authored graph, so the bundle has the portable variant only, and no int8, "
            "which is more than twice as fast; encort authors: %s",
            source.name,
            source.architecture,
            ", ".join(ARCHITECTURES),
        )
        return [VariantKind.PORTABLE]
    return [kind for kind in VariantKind if kind in (BY_DEFAULT if asked is None else asked)]


def _write_variants(
    trained: ExportSource, folder: Path, wanted: _Wanted
) -> tuple[list[Variant], QuantizationSearch | None]:
    """The graphs, the one to prefer first, and what was tried to find it."""
    full = write_fp32(trained, folder) if VariantKind.FP32 in wanted.kinds else []
    others = _write_portable(trained, folder, wanted) if VariantKind.PORTABLE in wanted.kinds else []
    others += [write_cuda(trained, folder, precision) for kind, precision in CUDA.items() if kind in wanted.kinds]
    if VariantKind.INT8 not in wanted.kinds:
        return [*full, *others], None
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_length=trained.max_length)
    calibration = Calibration.tokenize(trained, tokenizer, wanted.calibration)
    if wanted.evaluation is None:
        model = fit_int8(trained, calibration, weight_bits=wanted.weight_bits, progress=wanted.progress)
        # Last, because nobody has said that it is good enough to be what is loaded by default.
        return [*full, *others, *write_int8(trained, model, folder, weight_bits=wanted.weight_bits)], None
    found = search(
        trained,
        folder,
        calibration,
        wanted.evaluation,
        max_drop=wanted.max_drop,
        weight_bits=wanted.weight_bits,
        progress=wanted.progress,
    )
    found.save(folder)
    if found.model is not None:
        return [*write_int8(trained, found.model, folder, weight_bits=wanted.weight_bits), *full, *others], found
    if not full:
        raise FidelityError(
            f"no 8-bit graph is faster than fp32 and loses at most {wanted.max_drop:g} points:\n{found.table()}"
        )
    return [*full, *others], found


def _write_portable(trained: ExportSource, folder: Path, wanted: _Wanted) -> list[Variant]:
    """The portable graph; where nobody asked for it and others are there, a warning if it cannot be had."""
    try:
        return [write_portable(trained, folder)]
    except CheckpointError as error:
        if wanted.is_explicit or wanted.kinds == [VariantKind.PORTABLE]:
            raise
        log.warning("the bundle has no portable variant: %s", error)
        return []


def _write_manifest(trained: ExportSource, folder: Path, variants: Sequence[Variant]) -> Bundle:
    manifest = trained.manifest(folder, variants)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def _verify(
    bundle: Bundle,
    variants: Sequence[Variant],
    trained: ExportSource,
    samples: TokenBatch,
    *,
    open_session: OpenSession = open_to_verify,
    progress: bool,
) -> list[Fidelity]:
    return verify(
        [(variant, open_session(bundle, variant)) for variant in variants],
        trained.oracle,
        samples,
        tokens=trained.token_range,
        progress=progress,
    )
