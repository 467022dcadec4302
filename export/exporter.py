"""The whole walk from a checkpoint to a verified bundle."""

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from encort.export.architectures import describe
from encort.export.checkpoint import Checkpoint
from encort.export.description import Encoder, FloatArray
from encort.export.graph import save_sharing_weights
from encort.export.heads import author
from encort.export.oracle import Case, Oracle
from encort.export.samples import sample_texts
from encort.export.verify import verify
from encort.runtime.bundle import Bundle, file_entries
from encort.runtime.errors import CheckpointError
from encort.runtime.folders import check_replaceable, new_folder
from encort.runtime.golden import Golden
from encort.runtime.manifest import (
    CONFIG_FILE,
    FORMAT_VERSION,
    GOLDEN_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Device,
    Fidelity,
    Layout,
    Manifest,
    Output,
    Pooling,
    Precision,
    Source,
    Variant,
)
from encort.runtime.session import Session
from encort.runtime.tokenizer import Tokenizer
from encort.runtime.tokens import TokenBatch

WEIGHTS_FILE = "cpu-fp32.weights"
TOOLS = ("encort", "torch", "transformers", "tokenizers", "onnx-ir", "onnxruntime", "numpy")


def export_bundle(
    checkpoint: str | Path,
    output: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Bundle:
    """Export a checkpoint, verify it against eager PyTorch, and only then leave a bundle.

    Args:
        checkpoint: Folder in Hugging Face layout with safetensors, or a hub id.
        output: Folder to make.
        revision: Commit, branch or tag of a hub id.
        pooling: Of sentence embeddings; None takes what the checkpoint's sentence-transformers files say,
            otherwise the mean.
        normalize: Whether embeddings have length 1; None as above, otherwise true.
        max_length: Most tokens of one input; None takes the checkpoint's limit.
        overwrite: Replace an earlier bundle.
        progress: Show bars on stderr.

    Raises:
        CheckpointError: The checkpoint cannot be used; the message says what is wrong with it.
        FidelityError: Results differ from eager PyTorch past the tolerance; nothing was left behind.
        OutputExistsError: `output` exists.
    """
    output = Path(output)
    check_replaceable(output, marker=MANIFEST_FILE, overwrite=overwrite)
    source = Checkpoint.open(str(checkpoint), revision=revision, pooling=pooling)
    oracle = Oracle(source, source.embedding.pooling, source.embedding.normalize if normalize is None else normalize)
    encoder = describe(source.model.config, source.weights)
    limit = _limit(source, encoder, max_length)
    with new_folder(output, marker=MANIFEST_FILE, overwrite=overwrite) as folder:
        variants = _write_variants(encoder, oracle, folder)
        samples = _write_tokenizer(source, folder, limit)
        _write_golden(oracle, samples, folder)
        draft = _write_manifest(oracle, folder, variants, limit)
        fidelities = _verify(draft, oracle, samples, progress=progress)
        proven = [replace(variant, fidelity=found) for variant, found in zip(variants, fidelities, strict=True)]
        _write_manifest(oracle, folder, proven, limit)
    return Bundle.open(output)


def verify_against_checkpoint(
    bundle: Bundle, checkpoint: str | Path, *, progress: bool = False
) -> list[tuple[Variant, Fidelity]]:
    """Measure a bundle's variants against the checkpoint in eager PyTorch on this machine, as export does.

    Raises:
        CheckpointError: The checkpoint cannot be used, or its labels are not the bundle's.
        FidelityError: Results differ past the tolerance.
    """
    manifest = bundle.manifest
    is_source = str(checkpoint) == manifest.source.model
    revision = manifest.source.revision if is_source else None
    source = Checkpoint.open(str(checkpoint), revision=revision, pooling=manifest.pooling)
    if source.labels != manifest.labels:
        raise CheckpointError(f"{checkpoint} has other labels than the bundle: it is not what was exported")
    exported = json.loads(bundle.path(CONFIG_FILE).read_text(encoding="utf-8"))
    settings = json.loads(source.model.config.to_json_string())
    names = {*exported, *settings} - {"transformers_version"}
    different = sorted(name for name in names if exported.get(name) != settings.get(name))
    if different:
        raise CheckpointError(f"{checkpoint} is not what was exported: its config.json has another {different[0]}")
    oracle = Oracle(source, manifest.pooling, manifest.normalize)
    samples = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=manifest.max_length)(sample_texts())
    return list(zip(manifest.variants, _verify(bundle, oracle, samples, progress=progress), strict=True))


def _limit(source: Checkpoint, encoder: Encoder, asked: int | None) -> int:
    positions, shortest = len(encoder.embeddings.positions), source.tokenizer.num_special_tokens_to_add() + 1
    limit = source.max_length if asked is None else asked
    if not shortest <= limit <= positions:
        raise CheckpointError(
            f"max_length must be between {shortest} and the model's {positions} positions, got {limit}"
        )
    return limit


def _write_variants(encoder: Encoder, oracle: Oracle, folder: Path) -> list[Variant]:
    """Author the graphs of all layouts; they share one file of weights."""
    models = {
        layout: author(encoder, layout, pooling=oracle.pooling, normalize=oracle.normalize)
        for layout in (Layout.EQUAL_LENGTH, Layout.PADDED)
    }
    names = {Layout.EQUAL_LENGTH: "cpu-fp32", Layout.PADDED: "cpu-fp32-padded"}
    files = {layout: f"{name}.onnx" for layout, name in names.items()}
    save_sharing_weights({files[layout]: model for layout, model in models.items()}, folder, WEIGHTS_FILE)
    return [
        Variant(
            name=names[layout],
            file=files[layout],
            weights_file=WEIGHTS_FILE,
            device=Device.CPU,
            precision=Precision.FP32,
            layout=layout,
            instruction_set=None,
            inputs={str(value.name): _axes(value) for value in model.graph.inputs},
            outputs={str(value.name): _axes(value) for value in model.graph.outputs},
            fidelity=None,
        )
        for layout, model in models.items()
    ]


def _axes(value: object) -> list[str]:
    return [str(getattr(axis, "value", axis)) for axis in value.shape]  # type: ignore[attr-defined]


def _write_tokenizer(source: Checkpoint, folder: Path, limit: int) -> TokenBatch:
    """Write the tokenizer without padding and truncation of its own, and tokenize the samples with it."""
    backend = source.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / TOKENIZER_FILE))
    source.model.config.to_json_file(folder / CONFIG_FILE)
    texts = sample_texts()
    samples = Tokenizer(folder / TOKENIZER_FILE, max_length=limit)(texts)
    expected = source.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    if samples.ids.tolist() != [token for ids in expected for token in ids]:
        raise CheckpointError(f"{source.name}: its tokenizer.json gives other ids than transformers; save it again")
    return samples


def _write_golden(oracle: Oracle, samples: TokenBatch, folder: Path) -> None:
    expected = []
    for index in range(len(samples)):
        ids, type_ids = samples.rows(np.array([index]))
        expected.append(oracle(Case("golden", ids, type_ids, np.ones_like(ids))))
    names = [name for name in expected[0] if name is not Output.LAST_HIDDEN_STATE]
    outputs: dict[Output, FloatArray] = {name: np.concatenate([row[name] for row in expected]) for name in names}
    Golden(texts=sample_texts(), ids=samples.ids, outputs=outputs).save(folder / GOLDEN_FILE)


def _write_manifest(oracle: Oracle, folder: Path, variants: list[Variant], limit: int) -> Bundle:
    source = oracle.checkpoint
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        task=source.task,
        labels=source.labels,
        pooling=oracle.pooling,
        normalize=oracle.normalize,
        max_length=limit,
        source=Source(model=source.name, architecture=source.architecture, revision=source.revision),
        tools={"python": platform.python_version(), **{tool: version(tool) for tool in TOOLS}},
        files=file_entries(folder),
        variants=variants,
    )
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def _verify(bundle: Bundle, oracle: Oracle, samples: TokenBatch, *, progress: bool) -> list[Fidelity]:
    return verify(
        [(variant, Session(bundle, variant, threads=1)) for variant in bundle.manifest.variants],
        oracle,
        samples,
        limit=bundle.manifest.max_length,
        vocabulary=oracle.checkpoint.model.config.vocab_size,
        token_types=oracle.checkpoint.model.config.type_vocab_size,
        progress=progress,
    )
