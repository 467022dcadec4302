"""Golden vectors repeat the proof of the export without torch, and notice every change of the results."""

import contextlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Precision
from encort.runtime.common.errors import (
    BundleError,
    BundleFileChangedError,
    BundleFileMissingError,
    DeviceError,
    FidelityError,
)
from encort.runtime.verification.golden import verify_bundle, verify_variant
from encort.runtime.verification.golden_vectors import Golden
from encort.runtime.verification.tolerance import error_limit
from tests.runtime.conftest import EditManifest, ReplaceFile

ChangeGolden = Callable[..., None]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def change_golden(bundle: Path, replace_file: ReplaceFile) -> ChangeGolden:
    """`change(ids=..., logits=...)` replaces arrays in the golden vectors of the copy, and their hash."""

    def change(**arrays: Any) -> None:
        named = {name if name == "ids" else f"output:{name}": array for name, array in arrays.items()}
        with np.load(bundle / "golden.npz") as golden:
            replace_file("golden.npz", npz(**(dict(golden) | named)))

    return change


def test_saved_golden_vectors_are_loaded_again(tmp_path: Path) -> None:
    texts, rows = ["안녕 😀", "", ("my card", "안녕")], np.arange(12, dtype=np.float32)
    outputs = {"logits": rows.reshape(3, 4), "texts": rows.reshape(3, 2, 2), "tokens": rows[:4]}
    Golden(texts=texts, ids=np.array([2, 3, 4, 3]), outputs=outputs).save(tmp_path / "golden.npz")
    golden = Golden.load((tmp_path / "golden.npz").read_bytes())
    assert golden.texts == texts
    assert golden.ids.tolist() == [2, 3, 4, 3]
    assert golden.outputs.keys() == outputs.keys()
    for name, array in outputs.items():
        np.testing.assert_array_equal(golden.outputs[name], array)


def test_every_variant_of_a_good_bundle_passes(classifier_bundle: Path) -> None:
    opened = Bundle.open(classifier_bundle)
    checks = verify_bundle(opened)
    assert [check.variant for check in checks] == [variant.name for variant in opened.manifest.variants]
    for check in checks:
        assert check.texts == 50
        assert set(check.max_abs_error) == {"pooler_output", "sentence_embedding", "logits"}
        for name, error in check.max_abs_error.items():
            assert 0 < error <= error_limit(Precision.FP32, name, opened.manifest.embedding)
        assert 1 - 1e-6 <= check.min_cosine <= check.mean_cosine <= 1 + 1e-6


def test_one_variant_is_checked_like_all_of_them(classifier_bundle: Path) -> None:
    opened = Bundle.open(classifier_bundle)
    assert [verify_variant(opened, variant) for variant in opened.manifest.variants] == verify_bundle(opened)


def test_one_variant_with_other_weights_is_noticed(bundle: Path, replace_file: ReplaceFile) -> None:
    weights = np.fromfile(bundle / "cpu-fp32.weights", np.float32) * np.float32(1.01)
    replace_file("cpu-fp32.weights", weights.tobytes())
    opened = Bundle.open(bundle)
    with pytest.raises(FidelityError, match="differs from its golden vectors by"):
        verify_variant(opened, opened.manifest.variants[0])


def test_an_encoder_passes_without_logits(encoder_bundle: Path) -> None:
    assert all("logits" not in check.max_abs_error for check in verify_bundle(Bundle.open(encoder_bundle)))


FILES = [
    *("config.json", "golden.npz", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("cpu-fp32.onnx", "cpu-fp32-ragged.onnx", "cpu-fp32.weights"),
]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_checked(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleFileChangedError, match=name):
        verify_bundle(Bundle.open(bundle))
    (bundle / name).unlink()
    with pytest.raises(BundleFileMissingError, match=name):
        verify_bundle(Bundle.open(bundle))


def test_other_weights_are_noticed_even_if_their_hash_is_right(bundle: Path, replace_file: ReplaceFile) -> None:
    weights = np.fromfile(bundle / "cpu-fp32.weights", np.float32) * np.float32(1.01)
    replace_file("cpu-fp32.weights", weights.tobytes())
    with pytest.raises(FidelityError, match="variant cpu-fp32 differs from its golden vectors by"):
        verify_bundle(Bundle.open(bundle))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_one_wrong_number_is_noticed(bundle: Path, change_golden: ChangeGolden, value: float) -> None:
    logits = Golden.load((bundle / "golden.npz").read_bytes()).outputs["logits"]
    logits[-1, -1] = value
    change_golden(logits=logits)
    with pytest.raises(FidelityError, match=r"in logits on this machine; the limit is 0\.0001"):
        verify_bundle(Bundle.open(bundle))


def test_other_token_ids_are_noticed(bundle: Path, change_golden: ChangeGolden) -> None:
    ids = Golden.load((bundle / "golden.npz").read_bytes()).ids
    ids[1] += 1
    change_golden(ids=ids)
    with pytest.raises(BundleFileChangedError, match="the tokenizer gives other ids than at export"):
        verify_bundle(Bundle.open(bundle))


def zeros(shape: str) -> bytes:
    """Return an array of numpy with a shape in its header, and no content."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


IDS = np.array([1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not npz",
        npz(texts=np.array('["hello"]')),
        npz(texts=np.array([None]), ids=IDS),
        npz(texts=np.array("[" * 100_000), ids=IDS),
        npz(texts=np.array("[5]"), ids=IDS),
        npz(texts=np.array('[["a", "b", "c"]]'), ids=IDS),
        zipped(texts=zeros("(4611686018427387904,)"), ids=zeros("(1,)")),
        zipped(texts=zeros("(1099511627776, 1024)")),
        zipped(texts=bytes(2**30 + 1)),
    ],
    ids=[
        *("empty", "not npz", "no ids", "pickled", "deep json", "number", "three texts"),
        *("largest shape", "large shape", "zip bomb"),
    ],
)
def test_unreadable_golden_vectors_raise_a_bundle_error(
    bundle: Path, replace_file: ReplaceFile, content: bytes
) -> None:
    replace_file("golden.npz", content)
    with pytest.raises(BundleError):
        verify_bundle(Bundle.open(bundle))


@pytest.mark.parametrize("outputs", [[], ["surprise"], ["logits"]], ids=str)
def test_golden_vectors_without_the_output_of_the_certificate_raise_a_bundle_error(
    bundle: Path, replace_file: ReplaceFile, outputs: list[str]
) -> None:
    golden = Golden.load((bundle / "golden.npz").read_bytes())
    known = golden.outputs | {"surprise": np.zeros((50, 3), np.float32)}
    replace(golden, outputs={name: known[name] for name in outputs}).save(bundle.parent / "golden.npz")
    replace_file("golden.npz", (bundle.parent / "golden.npz").read_bytes())
    with pytest.raises(BundleError):
        verify_bundle(Bundle.open(bundle))


def test_an_output_with_the_wrong_number_of_rows_raises_a_bundle_error(
    bundle: Path, change_golden: ChangeGolden
) -> None:
    change_golden(surprise=np.zeros(3))
    with pytest.raises(BundleError):
        verify_bundle(Bundle.open(bundle))


def test_golden_vectors_of_fewer_texts_raise_a_bundle_error(bundle: Path, change_golden: ChangeGolden) -> None:
    change_golden(logits=np.zeros((3, 3), np.float32))
    with pytest.raises(BundleError):
        verify_bundle(Bundle.open(bundle))


def test_a_bundle_without_golden_vectors_raises_a_bundle_error(bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda plain: plain["files"].pop("golden.npz"))
    with pytest.raises(BundleError):
        verify_bundle(Bundle.open(bundle))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_golden_vectors_never_run_code(bundle: Path, replace_file: ReplaceFile, tmp_path: Path) -> None:
    replace_file("golden.npz", npz(texts=np.array([Touch(tmp_path / "touched")]), ids=np.array([1])))
    with contextlib.suppress(ValueError):
        verify_bundle(Bundle.open(bundle))
    assert not (tmp_path / "touched").exists()


def test_a_variant_without_a_device_is_not_checked_and_logged(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DeviceError("no CUDA-capable device")

    monkeypatch.setattr("encort.runtime.verification.golden.has_device", lambda _: True)
    monkeypatch.setattr("encort.runtime.verification.golden.open_devices", refuse)
    assert {check.variant for check in verify_bundle(Bundle.open(cuda_bundle))} == {"cpu-fp32", "cpu-fp32-ragged"}
    assert "cuda-fp16 is not checked: no CUDA-capable device" in caplog.text


def ignore_mask(graph: Any) -> None:
    """Let a graph compute with a mask of ones in place of its input."""
    for node in graph.node:
        node.input[:] = ["all_tokens" if name == "attention_mask" else name for name in node.input]
    zero, one = (onnx.helper.make_tensor(f"int_{value}", onnx.TensorProto.INT64, [], [value]) for value in (0, 1))
    graph.initializer.extend([zero, one])
    masked = onnx.helper.make_node("Mul", ["attention_mask", "int_0"], ["no_tokens"])
    graph.node.insert(0, onnx.helper.make_node("Add", ["no_tokens", "int_1"], ["all_tokens"]))
    graph.node.insert(0, masked)


def test_a_graph_that_reads_padding_is_noticed(bundle: Path, replace_file: ReplaceFile) -> None:
    model = onnx.load(bundle / "cpu-fp32-ragged.onnx", load_external_data=False)
    ignore_mask(model.graph)
    replace_file("cpu-fp32-ragged.onnx", model.SerializeToString())
    with pytest.raises(FidelityError, match=r"sentence_embedding of a text changes by .* with its neighbours"):
        verify_bundle(Bundle.open(bundle))
