"""Graphs for CUDA are exported and verified on a machine without a GPU."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from encort.export.commands import verify
from encort.export.exporter import export_bundle
from encort.export.graph.float16 import to_float16
from encort.export.source.export_source import ExportSource
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Device, Layout, Precision
from encort.runtime.common.errors import CheckpointError
from encort.runtime.verification.golden import verify_bundle


@pytest.fixture(scope="module")
def bundle(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    checkpoint = make_checkpoint(labels=["a", "b", "c"], seed=5, initializer_range=0.1)
    folder = tmp_path_factory.mktemp("cuda") / "b"
    return checkpoint, export_bundle(checkpoint, folder, variants=["fp32", "cuda-fp16", "cuda-fp32"])


def test_each_cuda_variant_has_a_certificate(bundle: tuple[Path, Bundle]) -> None:
    _, exported = bundle
    half, full = (v for v in exported.manifest.variants if v.device is Device.CUDA)
    assert (half.name, half.precision, half.layout) == ("cuda-fp16", Precision.FP16, Layout.PACKED)
    assert half.inputs["input_ids"] == ["tokens"]
    assert half.outputs["last_hidden_state"] == ["tokens", "40"]
    assert full.fidelity.max_abs_error["last_hidden_state"] < 1e-4
    assert 1e-4 < half.fidelity.max_abs_error["last_hidden_state"] < 0.1
    assert half.fidelity.min_cosine > 0.9999
    assert half.fidelity.label_flips == full.fidelity.label_flips == 0
    assert full.fidelity.cases == half.fidelity.cases > 40


def test_cuda_variants_are_made_only_when_they_are_asked_for(classifier_checkpoint: Path, tmp_path: Path) -> None:
    exported = export_bundle(classifier_checkpoint, tmp_path / "b", variants=None, calibration=None)
    assert not [variant for variant in exported.manifest.variants if variant.device is Device.CUDA]


def test_float16_weights_are_half_as_large(bundle: tuple[Path, Bundle]) -> None:
    _, exported = bundle
    half, full = (exported.manifest.files[f"cuda-{precision}.weights"].bytes for precision in ("fp16", "fp32"))
    assert half < 0.7 * full


def test_the_layers_compute_in_half_precision_and_the_heads_do_not(bundle: tuple[Path, Bundle]) -> None:
    _, exported = bundle
    model = ir.load(exported.folder / "cuda-fp16.onnx")
    attention = [node for node in model.graph if node.op_type == "PackedMultiHeadAttention"]
    assert len(attention) == 3
    dtypes = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert {dtype for name, dtype in dtypes.items() if "encoder" in name and "weight" in name} == {ir.DataType.FLOAT16}
    assert {dtype for name, dtype in dtypes.items() if "classifier" in name} == {ir.DataType.FLOAT}


def test_bundles_are_verified_without_the_device(bundle: tuple[Path, Bundle]) -> None:
    checkpoint, exported = bundle
    assert {check.variant for check in verify_bundle(exported)} == {"cpu-fp32", "cpu-fp32-ragged"}
    assert len(verify_against_checkpoint(exported, checkpoint)) == 4


def test_verify_says_that_the_cpu_ran_in_place_of_the_device(bundle: tuple[Path, Bundle]) -> None:
    checkpoint, exported = bundle
    done = CliRunner().invoke(verify, [str(exported.folder), "--checkpoint", str(checkpoint)], catch_exceptions=False)
    lines = [line.partition(": ") for line in done.stdout.splitlines() if "eager PyTorch" in line]
    assert {name: "on the CPU in place of cuda" in rest for name, _, rest in lines} == {
        "cpu-fp32": False,
        "cpu-fp32-ragged": False,
        "cuda-fp16": True,
        "cuda-fp32": True,
    }


def test_weights_beyond_float16_are_refused(bundle: tuple[Path, Bundle]) -> None:
    checkpoint, _ = bundle
    model = ExportSource.open([str(checkpoint)]).description
    (encoder,) = model.encoders
    layer = encoder.layers[0]
    feed_forward = layer.feed_forward
    weight = feed_forward.output.weight.copy()
    weight[0, 0] = 1e5
    wide = dataclasses.replace(feed_forward, output=dataclasses.replace(feed_forward.output, weight=weight))
    layer = dataclasses.replace(layer, feed_forward=wide)
    broken = dataclasses.replace(model, encoders=(dataclasses.replace(encoder, layers=(layer,)),))
    with pytest.raises(CheckpointError, match="beyond 65504"):
        to_float16(broken)


def test_a_vector_does_not_depend_on_its_neighbours(bundle: tuple[Path, Bundle]) -> None:
    _, exported = bundle
    variant = next(v for v in exported.manifest.variants if v.name == "cuda-fp32")
    session = open_to_verify(Bundle.open(exported.folder), variant)
    ids = np.random.default_rng(0).integers(5, 90, (3, 9))
    mask = (np.arange(9) < np.array([[4], [9], [1]])).astype(np.int64)
    rows = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": mask}
    (together,) = session.run(["sentence_embedding"], rows)
    for row, length in enumerate((4, 9, 1)):
        alone = {name: array[row : row + 1, :length] for name, array in rows.items()}
        (expected,) = session.run(["sentence_embedding"], alone)
        np.testing.assert_allclose(together[row], expected[0], atol=1e-6)
