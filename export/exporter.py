"""Export checkpoints as a verified bundle."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from encort.export.evaluation import Evaluation
from encort.export.int8.calibration import Calibration, check_calibration
from encort.export.int8.candidates import QuantizationSearch
from encort.export.int8.model import QuantizedModel, fit_int8, judge
from encort.export.int8.search import search
from encort.export.options import (
    CUDA_PRECISIONS,
    INT8_KINDS,
    ExportOptions,
    PoolingName,
    PortableFile,
    TaskName,
    VariantKind,
    VariantName,
    WeightBits,
)
from encort.export.plan import Plan
from encort.export.portable import write_portable
from encort.export.source.export_source import ExportSource
from encort.export.source.tokenizer_files import write_tokenizer_files
from encort.export.variants import open_candidate, write_cuda, write_fp32, write_int8, write_native
from encort.export.verification.against_checkpoint import checkpoint_names, verify_variants
from encort.export.verification.oracle import Case, Oracle
from encort.export.verification.samples import texts_for
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    LAST_HIDDEN_STATE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Precision,
    Variant,
)
from encort.runtime.common.errors import CheckpointError, FidelityError, InputError
from encort.runtime.common.folders import check_replaceable, check_writable, new_folder
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden_vectors import Golden
from encort.runtime.verification.space import with_space


def export_bundle(
    checkpoint: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    task: TaskName | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    pooling: PoolingName | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    variants: Collection[VariantName] | None = None,
    calibration: Sequence[Text] | None = None,
    evaluation: str | Path | None = None,
    evaluation_columns: Mapping[str, str] | None = None,
    evaluation_header: Sequence[str] | None = None,
    max_drop: float = 0.5,
    weight_bits: WeightBits | None = None,
    portable_file: PortableFile = "model.onnx",
    overwrite: bool = False,
    progress: bool = False,
) -> Bundle:
    """Export a checkpoint, verify it against eager PyTorch, and only then leave a bundle.

    Args:
        checkpoint: Folder in Hugging Face layout with safetensors, or a hub id. Several checkpoints with the same
            encoder and one head each become one bundle, which runs the encoder once for any of its heads. The name of
            each head is then the name of its folder.
        output: Folder to make.
        task: `"fill-mask"` keeps the head of a masked language model, for `Model.fill`; None exports its encoder alone.
        adapter: Task whose adapter is merged, if the checkpoint has adapters in its own weights, such as
            `"retrieval.query"` of jina-embeddings-v3; None exports the model without them.
        revision: Commit, branch or tag of a hub id.
        pooling: Pooling of sentence embeddings. None takes it from the checkpoint's sentence-transformers files; if
            there are none, it is the mean.
        normalize: Whether embeddings have length 1. None takes it from the same files; if there are none, it is true.
        max_length: Largest number of tokens of one input; None takes the checkpoint's limit.
        variants: Variants to make; None makes all variants for CPUs that the model allows.
        calibration: Texts or pairs as they will be served, a few hundred, on which int8 ranges are chosen; None takes
            fifty built-in ones.
        evaluation: File of labelled data, in any form that `encort train` reads. The fastest graph that loses at most
            `max_drop` becomes the bundle's first choice; all candidates are recorded in `search.json`, `search.md` and
            `search.svg`.
        evaluation_columns: Names of the data's columns by role, such as `{"text": "message"}`, instead of the
            conventional names; see `Evaluation.read`.
        evaluation_header: Names of the columns, for a .csv or .tsv file without a header.
        max_drop: Points of the task's metric that int8 may lose.
        weight_bits: Bits of int8 weights: 8 for processors with VNNI, 7 for those without; None takes the best for
            this processor.
        portable_file: Path of the portable graph. The convention of model hubs, and the default of transformers.js, is
            `onnx/model.onnx`.
        overwrite: Replace an earlier bundle.
        progress: Show progress bars on stderr.

    Returns:
        The opened bundle.

    Raises:
        CheckpointError: The checkpoint cannot be used; the message says why.
        DatasetError: The labelled data cannot be used.
        InputError: There are too few calibration texts, or an option has a wrong value.
        FidelityError: Results differ from eager PyTorch by more than the tolerance; no bundle was left behind.
        OutputExistsError: `output` exists.
        InputError: `output` cannot be written.
    """
    options = ExportOptions(
        task=task,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        variants=variants,
        calibration=calibration,
        evaluation=evaluation,
        evaluation_columns=evaluation_columns,
        evaluation_header=evaluation_header,
        max_drop=max_drop,
        weight_bits=weight_bits,
        portable_file=portable_file,
        progress=progress,
    )
    if calibration is not None:
        check_calibration(calibration)
    names, output = checkpoint_names(checkpoint), Path(output)
    if revision is not None and len(names) > 1:
        raise InputError("one revision cannot name several checkpoints; give folders, or export them apart")
    check_replaceable(output, marker=MANIFEST_FILE, overwrite=overwrite)
    check_writable(output)
    source = ExportSource.open(
        names,
        revisions=[] if revision is None else [revision],
        pooling=options.chosen_pooling,
        normalize=normalize,
        max_length=max_length,
        fills_masks=task is not None,
        adapter=adapter,
    )
    plan = Plan.of(source, options)
    with new_folder(output, marker=MANIFEST_FILE, overwrite=overwrite) as folder:
        _fill(folder, source, plan)
    return Bundle.open(output)


def _fill(folder: Path, source: ExportSource, plan: Plan) -> None:
    """Write all files of the bundle, and verify its variants.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        FidelityError: Results differ from eager PyTorch by more than the tolerance.
    """
    samples = _write_tokenizer(source, folder)
    _write_golden(source, samples, folder)
    variants, result = _write_variants(source, folder, plan)
    draft = _write_manifest(source, folder, variants)
    fidelities = verify_variants(draft, variants, source, samples, progress=plan.options.progress)
    metrics = [None if result is None else result.certificate(variant, variants) for variant in variants]
    certified = [
        replace(variant, fidelity=replace(fidelity, metric=metric))
        for variant, fidelity, metric in zip(variants, fidelities, metrics, strict=True)
    ]
    _write_manifest(source, folder, certified)


def _write_tokenizer(source: ExportSource, folder: Path) -> TokenBatch:
    """Write the tokenizer without padding and truncation of its own, and tokenize the samples with it."""
    checkpoint, texts = source.checkpoints[0], texts_for(source)
    write_tokenizer_files(checkpoint, folder, max_length=source.max_length)
    checkpoint.model.config.to_json_file(folder / CONFIG_FILE)
    tokenizer = Tokenizer((folder / TOKENIZER_FILE).read_bytes(), max_length=source.max_length)
    samples = source.tokenize(tokenizer, texts)
    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    limits = {"truncation": True, "max_length": source.max_length}
    expected = [checkpoint.tokenizer(first, second, **limits)["input_ids"] for first, second in pairs]
    if samples.ids.tolist() != [token for ids in expected for token in ids]:
        raise CheckpointError(f"{checkpoint.name}: its tokenizer.json gives other ids than transformers; save it again")
    return samples


def _write_golden(source: ExportSource, samples: TokenBatch, folder: Path) -> None:
    oracle = Oracle.of(source)
    expected = [oracle(Case("golden", samples.rows(np.array([index])))) for index in range(len(samples))]
    # Hidden states would be most of the bundle, and every other output depends on them.
    names = [name for name in expected[0] if name != LAST_HIDDEN_STATE]
    outputs = {
        # Rows per token lose the axis of texts here, so that the tokens of all texts can be concatenated.
        name: np.concatenate([row[name][0] if name in source.tokenwise else row[name] for row in expected])
        for name in names
    }
    Golden(texts=samples.texts, ids=samples.ids, outputs=outputs).save(folder / GOLDEN_FILE)


def _write_variants(source: ExportSource, folder: Path, plan: Plan) -> tuple[list[Variant], QuantizationSearch | None]:
    """Write all graphs.

    Returns:
        The variants, the first choice first, and the search that chose it; None without labelled data.
    """
    fp32 = write_fp32(source, folder) if VariantKind.FP32 in plan.kinds else []
    if VariantKind.NATIVE_BF16 in plan.kinds:
        fp32.insert(0, write_native(source, QuantizedModel.unquantized(source), folder, Precision.BF16))
    file = plan.options.portable_file
    others = [write_portable(source, folder, file)] if VariantKind.PORTABLE in plan.kinds else []
    others += [
        write_cuda(source, folder, precision) for kind, precision in CUDA_PRECISIONS.items() if kind in plan.kinds
    ]
    if set(INT8_KINDS).isdisjoint(plan.kinds):
        return [*fp32, *others], None
    tokenizer = Tokenizer((folder / TOKENIZER_FILE).read_bytes(), max_length=source.max_length)
    calibration = Calibration.tokenize(source, tokenizer, plan.options.calibration)
    bits = plan.options.bits
    if plan.evaluation is None:
        model = fit_int8(source, calibration, weight_bits=bits, progress=plan.options.progress)
        # int8 is last, because without labelled data nothing shows that it is good enough to be loaded by default.
        return [*fp32, *others, *_write_int8(source, model, folder, calibration, plan)], None
    result = _search(source, folder, calibration, plan.evaluation, plan.options)
    if result.model is not None:
        return [*_write_int8(source, result.model, folder, calibration, plan), *fp32, *others], result
    if not fp32:
        raise FidelityError(
            f"no int8 graph is faster than fp32 and loses at most {plan.options.max_drop:g} points:\n{result.table()}"
        )
    return [*fp32, *others], result


def _write_int8(
    source: ExportSource, model: QuantizedModel, folder: Path, calibration: Calibration, plan: Plan
) -> list[Variant]:
    """Write the int8 graphs that the plan has; the native one, which is faster, first."""
    variants: list[Variant] = []
    if VariantKind.NATIVE_INT8 in plan.kinds:
        variants.append(write_native(source, model, folder, Precision.INT8))
    if VariantKind.INT8 in plan.kinds:
        variants += write_int8(source, model, folder, weight_bits=plan.options.bits)
    similarities = judge(model, Oracle.of(source), calibration.judged)
    texts = replace(calibration.texts, mean_cosine=float(similarities.mean()), min_cosine=float(similarities.min()))
    return [replace(variant, calibration=texts) for variant in variants]


def _search(
    source: ExportSource, folder: Path, calibration: Calibration, evaluation: Evaluation, options: ExportOptions
) -> QuantizationSearch:
    result = search(
        source,
        calibration,
        evaluation,
        functools.partial(open_candidate, source=source, folder=folder, weight_bits=options.bits),
        max_drop=options.max_drop,
        weight_bits=options.bits,
        progress=options.progress,
    )
    result.save(folder)
    return result


def _write_manifest(source: ExportSource, folder: Path, variants: Sequence[Variant]) -> Bundle:
    golden = Golden.load((folder / GOLDEN_FILE).read_bytes())
    manifest = with_space(source.manifest(folder, variants), golden)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)
