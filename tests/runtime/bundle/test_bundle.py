"""A bundle can be moved, a damaged bundle raises one clear error, and no path leaves its folder."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import encort
from encort.runtime.bundle import bundle as bundle_module
from encort.runtime.bundle import files
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import FORMAT_VERSION, Device, Precision
from encort.runtime.common.errors import (
    BundleError,
    BundleFileChangedError,
    BundleFileMissingError,
    BundlePathError,
    BundleVersionError,
    VariantNotFoundError,
)
from encort.runtime.verification.golden import verify_bundle
from tests.runtime.conftest import EditManifest, PlainManifest, ReplaceFile

GRAPH, WEIGHTS = "cpu-fp32.onnx", "cpu-fp32.weights"
LOADED = ["tokenizer.json", GRAPH, WEIGHTS]


def load(folder: Path) -> None:
    encort.load(folder, threads=1).close()


def test_a_moved_bundle_gives_the_same_results(bundle: Path, tmp_path: Path, classifier: encort.Model) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = bundle.rename(tmp_path / "elsewhere" / "이사 한.bundle")
    with encort.load(moved) as model:
        assert model.classify(["my card is lost"]) == classifier.classify(["my card is lost"])


def test_a_bundle_is_found_by_a_relative_path(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    opened = Bundle.open(bundle.name)
    monkeypatch.chdir("/")
    assert opened.read(GRAPH) == (bundle / GRAPH).read_bytes()


def test_a_bundle_is_found_through_a_link_to_its_folder(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle, target_is_directory=True)
    load(tmp_path / "link")


def test_a_missing_folder_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleFileMissingError, match=r"no folder .*nowhere; make a bundle with: encort export"):
        load(tmp_path / "nowhere")


def test_the_error_for_a_checkpoint_says_to_export_it(classifier_checkpoint: Path) -> None:
    with pytest.raises(BundleFileMissingError, match=r"has no encort\.json.*encort export"):
        load(classifier_checkpoint)


@pytest.mark.parametrize("name", LOADED)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleFileMissingError, match=f"lacks {name}"):
        load(bundle)


@pytest.mark.parametrize("name", LOADED)
def test_one_changed_bit_is_noticed(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleFileChangedError, match=f"{name} is not the file that was exported"):
        load(bundle)


@pytest.mark.parametrize("name", LOADED)
def test_a_shortened_file_is_noticed(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1])
    with pytest.raises(BundleFileChangedError, match=name):
        load(bundle)


@pytest.mark.parametrize("version", [FORMAT_VERSION - 2, FORMAT_VERSION + 1])
def test_another_format_version_raises_its_own_error(bundle: Path, edit_manifest: EditManifest, version: int) -> None:
    edit_manifest(lambda plain: plain.update(format_version=version))
    with pytest.raises(BundleVersionError, match=f"format_version {version}"):
        load(bundle)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not json"])
def test_a_manifest_that_is_not_json_raises_a_bundle_error(bundle: Path, content: bytes) -> None:
    (bundle / "encort.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"encort\.json"):
        load(bundle)


def test_a_folder_instead_of_the_manifest_raises_a_bundle_error(bundle: Path) -> None:
    (bundle / "encort.json").unlink()
    (bundle / "encort.json").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        load(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "/",
        "sub/",
        "sub//file",
        "./config.json",
        "sub/./config.json",
        "sub/../config.json",
        "..\\outside",
        "C:\\file",
        "..",
        ".",
        "",
        "nul\0byte",
        "\ud800",
    ],
)
def test_a_name_that_is_not_a_path_downwards_is_refused(bundle: Path, edit_manifest: EditManifest, name: str) -> None:
    (bundle.parent / "outside").write_bytes(b"x")
    edit_manifest(lambda plain: plain["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundlePathError, match="do not trust it"):
        load(bundle)


def test_a_variant_cannot_name_a_file_outside_of_the_folder(bundle: Path, edit_manifest: EditManifest) -> None:
    shutil.copy(bundle / GRAPH, bundle.parent)
    edit_manifest(lambda plain: plain["variants"][0].update(file=f"../{GRAPH}"))
    with pytest.raises(BundleError, match=f"no hash for '../{GRAPH}'"):
        load(bundle)


@pytest.mark.parametrize("name", [*LOADED, "config.json", "golden.npz", "encort.json"])
def test_a_link_that_leaves_the_folder_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).rename(bundle.parent / "outside")
    (bundle / name).symlink_to("../outside")
    with pytest.raises(BundlePathError):
        load(bundle)


def test_a_folder_that_is_a_link_out_of_the_bundle_is_refused(bundle: Path, edit_manifest: EditManifest) -> None:
    shutil.copytree(bundle, bundle.parent / "outside")
    (bundle / "onnx").symlink_to("../outside", target_is_directory=True)
    edit_manifest(lambda plain: plain["files"].update({f"onnx/{GRAPH}": plain["files"][GRAPH]}))
    with pytest.raises(BundlePathError):
        load(bundle)


def test_a_graph_in_a_folder_reads_weights_beside_it_only(bundle: Path, edit_manifest: EditManifest) -> None:
    """The weights at the top have the right name and a hash, but ONNX Runtime would read others."""
    (bundle / "onnx").mkdir()
    (bundle / GRAPH).rename(bundle / "onnx" / GRAPH)
    shutil.copy(bundle / WEIGHTS, bundle / "onnx")

    def move(plain: PlainManifest) -> None:
        plain["files"][f"onnx/{GRAPH}"] = plain["files"].pop(GRAPH)
        plain["variants"][0]["file"] = f"onnx/{GRAPH}"

    edit_manifest(move)
    with pytest.raises(BundlePathError, match=f"reads weights from '{WEIGHTS}'"):
        load(bundle)


def test_a_name_that_is_too_long_for_the_file_system_raises_a_bundle_error(
    bundle: Path, edit_manifest: EditManifest
) -> None:
    def rename(plain: PlainManifest) -> None:
        plain["variants"][0]["file"] = "x" * 300
        plain["files"]["x" * 300] = plain["files"][GRAPH]

    edit_manifest(rename)
    with pytest.raises(BundleError):
        load(bundle)


@pytest.mark.parametrize("name", [*LOADED, "config.json"])
def test_every_used_file_has_a_hash(bundle: Path, edit_manifest: EditManifest, name: str) -> None:
    edit_manifest(lambda plain: plain["files"].pop(name))
    with pytest.raises(BundleError, match=f"no hash for '{name}'"):
        load(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 0},
        {"max_length": -1},
        {"max_length": 10**30},
        {"variants": []},
    ],
    ids=str,
)
def test_an_impossible_manifest_is_refused_on_load(
    bundle: Path, edit_manifest: EditManifest, change: PlainManifest
) -> None:
    edit_manifest(lambda plain: plain.update(change))
    with pytest.raises(BundleError):
        load(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["card_lost", "change_pin"]},
        {"labels": ["card_lost", "card_lost", "hello"]},
        {"labels": []},
        {"outputs": []},
        {"outputs": ["logits", "surprise"]},
        {"outputs": ["sentence_embedding"]},
    ],
    ids=str,
)
def test_an_impossible_head_is_refused_on_load(
    bundle: Path, edit_manifest: EditManifest, change: PlainManifest
) -> None:
    edit_manifest(lambda plain: plain["heads"][0].update(change))
    with pytest.raises(BundleError):
        load(bundle)


@pytest.mark.parametrize("change", [{"max_length": "x" * 10**6}, {"x" * 10**6: 1}, {"format_version": "x" * 10**6}])
def test_an_error_quotes_little_of_a_huge_value(
    bundle: Path, edit_manifest: EditManifest, change: PlainManifest
) -> None:
    edit_manifest(lambda plain: plain.update(change))
    with pytest.raises(BundleError, match=r"^encort\.json.* … .*export the bundle again") as refused:
        load(bundle)
    assert len(str(refused.value)) <= 1000


def test_two_heads_with_the_same_name_are_refused_on_load(bundle: Path, edit_manifest: EditManifest) -> None:
    edit_manifest(lambda plain: plain.update(heads=2 * plain["heads"]))
    with pytest.raises(BundleError, match="two heads have one name"):
        load(bundle)


def test_a_graph_with_other_inputs_is_refused(bundle: Path, replace_file: ReplaceFile) -> None:
    replace_file(GRAPH, (bundle / "cpu-fp32-ragged.onnx").read_bytes())
    with pytest.raises(BundleFileChangedError, match=r"inputs are .*attention_mask.* the manifest says"):
        load(bundle)


def rename_output(graph: Any) -> None:
    graph.node[-1].output[0] = graph.output[-1].name = "scores"


def rename_axis(graph: Any) -> None:
    for value in graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "length"


def fix_axis(graph: Any) -> None:
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize("change", [rename_output, rename_axis, fix_axis])
def test_a_graph_with_other_names_or_axes_is_refused(
    bundle: Path, replace_file: ReplaceFile, change: Callable[[Any], None]
) -> None:
    model = onnx.load(bundle / GRAPH, load_external_data=False)
    change(model.graph)
    replace_file(GRAPH, model.SerializeToString())
    with pytest.raises(BundleFileChangedError, match="the manifest says"):
        load(bundle)


@pytest.mark.parametrize("content", [b"", b"not onnx"])
def test_a_file_that_is_not_a_graph_is_refused(bundle: Path, replace_file: ReplaceFile, content: bytes) -> None:
    replace_file(GRAPH, content)
    message = f"onnxruntime {onnxruntime.__version__} cannot open .*|is not an ONNX graph .*; export the bundle again"
    with pytest.raises(BundleError, match=message):
        load(bundle)


def test_a_file_that_is_not_a_tokenizer_is_refused(bundle: Path, replace_file: ReplaceFile) -> None:
    replace_file("tokenizer.json", b"{}")
    with pytest.raises(BundleError, match="is not a tokenizer"):
        load(bundle)


@pytest.mark.parametrize("location", ["../outside", "{parent}/outside", "link"])
def test_a_graph_cannot_read_weights_from_outside(bundle: Path, replace_file: ReplaceFile, location: str) -> None:
    shutil.copy(bundle / WEIGHTS, bundle.parent / "outside")
    (bundle / "link").symlink_to("../outside")
    model = onnx.load(bundle / GRAPH, load_external_data=False)
    entries = [entry for weight in model.graph.initializer for entry in weight.external_data if entry.key == "location"]
    assert {entry.value for entry in entries} == {WEIGHTS}
    for entry in entries:
        entry.value = location.format(parent=bundle.parent)
    replace_file(GRAPH, model.SerializeToString())
    with pytest.raises(BundleError):
        load(bundle)


def test_a_graph_without_a_file_of_weights_in_the_manifest_cannot_read_one(
    bundle: Path, edit_manifest: EditManifest
) -> None:
    edit_manifest(lambda plain: plain["variants"][0].update(weights_file=None))
    with pytest.raises(BundlePathError, match=f"reads weights from '{WEIGHTS}', which encort.json does not name"):
        load(bundle)


def test_a_graph_with_its_weights_inside_is_loaded(
    bundle: Path, replace_file: ReplaceFile, edit_manifest: EditManifest
) -> None:
    replace_file(GRAPH, onnx.load(bundle / GRAPH).SerializeToString())
    edit_manifest(lambda plain: plain["variants"][0].update(weights_file=None))
    (bundle / WEIGHTS).unlink()
    with encort.load(bundle, threads=1) as model:
        assert model.classify(["my card is lost"])


@pytest.mark.parametrize("name", [*LOADED, "config.json", "golden.npz", "encort.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_what_is_not_a_file_is_refused_at_once(bundle: Path, name: str, kind: str) -> None:
    (bundle / name).unlink()
    if kind == "pipe":
        os.mkfifo(bundle / name)
    elif kind == "folder":
        (bundle / name).mkdir()
    else:
        place_socket(bundle / name)
    with pytest.raises(BundleError, match=f"{name} cannot be read: .* is a .*, not a file"):
        verify_bundle(Bundle.open(bundle))


def place_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        descriptor = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{descriptor}/{path.name}")  # the path itself may be too long
        os.close(descriptor)


@pytest.mark.parametrize("name", [*LOADED, "config.json", "golden.npz", "encort.json"])
def test_a_huge_sparse_file_is_refused_at_once(bundle: Path, name: str) -> None:
    os.truncate(bundle / name, 40 * 2**30)
    with pytest.raises(BundleError, match="42,949,672,960 bytes"):
        verify_bundle(Bundle.open(bundle))


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.npz", GRAPH])
def test_a_huge_file_is_refused_even_if_the_manifest_has_its_size(
    bundle: Path, edit_manifest: EditManifest, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(bundle / name, 2**31 + 1)
    edit_manifest(lambda plain: plain["files"][name].update(bytes=2**31 + 1))
    monkeypatch.setattr(files, "check_file", lambda *_: None)  # hashing two GiB takes seconds
    monkeypatch.setattr(bundle_module, "check_file", lambda *_: None)
    with pytest.raises(BundleError, match="has 2,147,483,649 bytes, and files of this kind have at most"):
        verify_bundle(Bundle.open(bundle))


@pytest.mark.parametrize("name", [*LOADED, "config.json", "golden.npz"])
def test_a_wrong_size_in_the_manifest_is_noticed(bundle: Path, edit_manifest: EditManifest, name: str) -> None:
    edit_manifest(lambda plain: plain["files"][name].update(bytes=plain["files"][name]["bytes"] + 1))
    with pytest.raises(BundleFileChangedError, match=f"{name} is not the file that was exported .* bytes instead of"):
        verify_bundle(Bundle.open(bundle))


def test_a_file_that_is_not_used_is_not_checked(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()
    load(bundle)


@pytest.mark.parametrize(
    ("names", "precision", "taken"),
    [
        (["cpu-fp32", "cpu-int8"], None, "cpu-fp32"),
        (["cpu-int8", "cpu-fp32"], None, "cpu-int8"),
        (["cpu-int8", "cpu-fp32"], Precision.FP32, "cpu-fp32"),
        (["cpu-fp32", "cpu-fp32-ragged"], None, "cpu-fp32"),
        (["cpu-fp32-ragged", "cpu-fp32"], None, "cpu-fp32-ragged"),
        (["cpu-fp32-ragged"], None, "cpu-fp32-ragged"),
    ],
    ids=str,
)
def test_the_first_variant_that_fits_is_taken(
    classifier_bundle: Path, names: list[str], precision: Precision | None, taken: str
) -> None:
    bundle = Bundle.open(classifier_bundle)
    variants = {variant.name: variant for variant in bundle.manifest.variants}
    variants["cpu-int8"] = replace(variants["cpu-fp32"], name="cpu-int8", precision=Precision.INT8)
    manifest = replace(bundle.manifest, variants=[variants[name] for name in names])
    assert replace(bundle, manifest=manifest).variant(Device.CPU, precision).name == taken


def test_the_error_for_a_missing_variant_lists_the_others(classifier_bundle: Path) -> None:
    with pytest.raises(VariantNotFoundError, match=r"device cuda, precision auto; it has: cpu-fp32, cpu-fp32-ragged"):
        Bundle.open(classifier_bundle).variant(Device.CUDA, None)


def test_the_order_of_variants_does_not_change_results(
    bundle: Path, edit_manifest: EditManifest, classifier: encort.Model
) -> None:
    edit_manifest(lambda plain: plain["variants"].reverse())
    with encort.load(bundle) as model:
        np.testing.assert_allclose(model.embed(["hello"]), classifier.embed(["hello"]), atol=1e-6)


def test_outputs_of_other_variants_do_not_matter(
    bundle: Path, edit_manifest: EditManifest, classifier: encort.Model
) -> None:
    def change(plain: PlainManifest) -> None:
        plain["variants"][-1]["outputs"] = {"sentence_embedding": ["batch", "7"], "logits": ["batch", "3"]}

    edit_manifest(change)
    with encort.load(bundle) as model:
        assert model.classify(["hello"]) == classifier.classify(["hello"])
        assert model.embed(["hello"]).shape == (1, 40)


def test_loading_writes_nothing(bundle: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    load(bundle)
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == before


def test_the_manifest_hashes_every_other_file(classifier_bundle: Path) -> None:
    names = set(json.loads((classifier_bundle / "encort.json").read_text(encoding="utf-8"))["files"])
    assert names == {path.name for path in classifier_bundle.iterdir()} - {"encort.json"}


def test_a_path_that_is_not_unicode_is_refused(bundle: Path) -> None:
    renamed = bundle.rename(bundle.with_name("b\udcff"))
    with pytest.raises(BundleError, match="the path is not UTF-8"):
        Bundle.open(renamed)
