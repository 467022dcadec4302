"""The portable graph of a bundle: its place, its outputs and its certificate. `tests/parity` compares its results."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

import encort
from encort.export import portable
from encort.export.exporter import export_bundle
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Layout
from encort.runtime.cli.main import group
from encort.runtime.verification.golden import verify_bundle
from tests.builders import HEADS, save_heads

TEXTS = ["my card is lost", "hello", "안녕하세요 하이", "play the card, change my pin " * 3, "a"]
TOKENS = ["batch", "sequence"]


@pytest.fixture(scope="module")
def heads(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with one encoder, one for each head of `HEADS`."""
    folder = tmp_path_factory.mktemp("heads")
    save_heads(encoder_checkpoint, folder)
    return {name: folder / name for name in HEADS}


@pytest.fixture(scope="module")
def classifier(classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Bundle with the fp32 graphs and the portable graph."""
    folder = tmp_path_factory.mktemp("bundles") / "b"
    return export_bundle(classifier_checkpoint, folder, variants=["fp32", "portable"])


def test_the_portable_variant_has_the_outputs_of_the_others_and_a_certificate(classifier: Bundle) -> None:
    first, _, variant = classifier.manifest.variants
    assert (variant.name, variant.file, variant.weights_file) == ("portable", "model.onnx", None)
    assert variant.layout is Layout.PADDED
    assert variant.inputs == dict.fromkeys(["input_ids", "token_type_ids", "attention_mask"], TOKENS)
    assert variant.outputs == first.outputs
    assert variant.fidelity is not None
    assert variant.fidelity.max_abs_error.keys() == variant.outputs.keys()
    assert variant.fidelity.batch_difference <= 1e-5
    assert [check.variant for check in verify_bundle(classifier)][-1] == "portable"


def test_a_portable_bundle_with_a_head_predicts_and_embeds(
    classifier: Bundle, classifier_checkpoint: Path, tmp_path: Path
) -> None:
    alone = export_bundle(classifier_checkpoint, tmp_path / "b", variants=["portable"]).folder
    done = CliRunner().invoke(group, ["predict", str(alone), *TEXTS])
    assert len(done.stdout.splitlines()) == len(TEXTS)
    with encort.load(alone) as model, encort.load(classifier.folder) as other:
        assert [result.label for result in model.classify(TEXTS)] == [result.label for result in other.classify(TEXTS)]
        np.testing.assert_allclose(model.embed(TEXTS), other.embed(TEXTS), rtol=0, atol=1e-5)


def test_several_heads_have_the_names_of_the_manifest(heads: dict[str, Path], output: Path) -> None:
    bundle = export_bundle([heads["topics"], heads["answers"]], output, variants=["portable"])
    (variant,) = bundle.manifest.variants
    logits = {"topics.logits": ["batch", "3"], "answers.start_logits": TOKENS, "answers.end_logits": TOKENS}
    assert {name: variant.outputs[name] for name in logits} == logits
    assert [output for head in bundle.manifest.heads for output in head.outputs] == list(logits)


@pytest.mark.parametrize("is_large", [False, True])
def test_the_graph_can_be_where_model_hubs_expect_it(
    encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_large: bool
) -> None:
    monkeypatch.setattr(portable, "_LARGEST_FILE", 10_000 if is_large else 10**9)
    command = ["export", str(encoder_checkpoint), "-o", str(tmp_path / "b"), "--portable-file", "onnx/model.onnx"]
    done = CliRunner().invoke(group, [*command, "--variant", "portable"])
    assert done.exit_code == 0, done.stderr
    folder = shutil.move(tmp_path / "b", tmp_path / "moved")
    (variant,) = Bundle.open(folder).manifest.variants
    assert (variant.file, variant.weights_file) == ("onnx/model.onnx", "onnx/model.onnx_data" if is_large else None)
    assert {file.name for file in (folder / "onnx").iterdir()} == {"model.onnx", *(["model.onnx_data"] * is_large)}
    with encort.load(folder) as model:
        assert model.embed(TEXTS).shape == (5, 40)
    assert verify_bundle(Bundle.open(folder))
    (folder / (variant.weights_file or variant.file)).write_bytes(b"other")
    with pytest.raises(encort.errors.BundleFileChangedError, match=r"model\.onnx"):
        encort.load(folder)


def test_weights_too_large_for_one_file_are_stored_beside_it(
    encoder_checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_LARGEST_FILE", 10_000)
    folder = export_bundle(encoder_checkpoint, output, variants=["portable"]).folder
    (variant,) = Bundle.open(folder).manifest.variants
    assert variant.weights_file == "model.onnx_data"
    assert (folder / "model.onnx").stat().st_size < (folder / "model.onnx_data").stat().st_size
    with encort.load(folder) as model, encort.load(copied := shutil.copytree(folder, folder.parent / "moved")) as moved:
        np.testing.assert_array_equal(model.embed(TEXTS), moved.embed(TEXTS))
    assert (copied / "model.onnx_data").is_file()


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_embeddings_are_pooled_as_the_bundle_says(encoder_checkpoint: Path, tmp_path: Path, pooling: str) -> None:
    embeddings = []
    for variant in ("fp32", "portable"):
        bundle = export_bundle(encoder_checkpoint, tmp_path / variant, variants=[variant], pooling=pooling)
        with encort.load(bundle.folder) as model:
            embeddings.append(model.embed(TEXTS))
    np.testing.assert_allclose(embeddings[0], embeddings[1], rtol=0, atol=1e-5)


def test_masks_are_finite_in_half_precisions(classifier: Bundle) -> None:
    graph = onnx.load(classifier.folder / "model.onnx").graph
    smallest = min(numpy_helper.to_array(tensor).min() for tensor in graph.initializer if tensor.data_type == 1)
    assert np.finfo(np.float16).min < smallest < -10_000
