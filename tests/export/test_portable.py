"""Other libraries load `model.onnx` and get the results of eager transformers."""

import functools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from click.testing import CliRunner
from onnx import numpy_helper
from optimum import onnxruntime as optimum

import encort
from encort.export import portable
from encort.export.exporter import export_bundle
from encort.export.portable import write_portable
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Layout, Pooling
from encort.runtime.cli.main import group
from encort.runtime.verification.golden import verify_bundle

TEXTS = ["my card is lost", "hello", "안녕하세요 하이", "play the card, change my pin " * 3, "a"]
HEADS = {
    "encoder": ("FeatureExtraction", ["last_hidden_state"]),
    "classifier": ("SequenceClassification", ["logits"]),
    "tagger": ("TokenClassification", ["logits"]),
    "reader": ("QuestionAnswering", ["start_logits", "end_logits"]),
}


@pytest.fixture(scope="module")
def folders(
    encoder_checkpoint: Path, classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One checkpoint per head, by the names in `HEADS`."""
    checkpoints = {"encoder": encoder_checkpoint, "classifier": classifier_checkpoint}
    for name in ("tagger", "reader"):
        torch.manual_seed(4)
        loader = getattr(transformers, f"AutoModelFor{HEADS[name][0]}")
        checkpoints[name] = tmp_path_factory.mktemp(name)
        shutil.copytree(encoder_checkpoint, checkpoints[name], dirs_exist_ok=True)
        loader.from_pretrained(encoder_checkpoint).save_pretrained(checkpoints[name])
    return checkpoints


@pytest.fixture(scope="module")
def bundle(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    @functools.cache
    def export(head: str, **options: Any) -> Bundle:
        folder = tmp_path_factory.mktemp("bundles") / f"{head}.bundle"
        return export_bundle(folders[head], folder, variants=["fp32", "portable"], **options)

    return export


@pytest.fixture(scope="module")
def batch(encoder_checkpoint: Path) -> Any:
    """Pairs of texts padded to one length, with both token types."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_checkpoint)
    return tokenizer(TEXTS, TEXTS[::-1], padding=True, truncation=True, return_tensors="pt")


@torch.inference_mode()
def eager_outputs(folder: Path, head: str, batch: Any) -> dict[str, np.ndarray]:
    loader, outputs = HEADS[head]
    loader = transformers.AutoModel if head == "encoder" else getattr(transformers, f"AutoModelFor{loader}")
    result = loader.from_pretrained(folder, attn_implementation="eager").eval()(**batch)
    return {name: result[name].numpy() for name in outputs}


# The file.


@pytest.mark.parametrize("head", HEADS)
def test_only_standard_operators_and_named_axes(bundle: Callable[..., Bundle], head: str) -> None:
    model = onnx.load(bundle(head).folder / "model.onnx")
    assert {imported.domain for imported in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} | {node.domain for node in model.functions} <= {""}
    onnx.checker.check_model(model, full_check=True)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    tokens = ["batch", "sequence"]
    assert [axes.pop(name) for name in inputs] == [tokens] * 3
    expected = {
        "encoder": {"last_hidden_state": [*tokens, 40], "sentence_embedding": ["batch", 40]},
        "classifier": {"logits": ["batch", 3]},
        "tagger": {"logits": [*tokens, 2]},
        "reader": {"start_logits": tokens, "end_logits": tokens},
    }
    assert axes == expected[head]


@pytest.mark.parametrize("head", HEADS)
def test_the_portable_variant_is_last_and_has_a_certificate(bundle: Callable[..., Bundle], head: str) -> None:
    *_, variant = bundle(head).manifest.variants
    assert [other.name for other in bundle(head).manifest.variants] == ["cpu-fp32", "cpu-fp32-ragged", "portable"]
    assert (variant.file, variant.weights_file, variant.layout) == ("model.onnx", None, Layout.PADDED)
    assert variant.fidelity.max_abs_error.keys() == variant.outputs.keys()
    assert variant.fidelity.batch_difference <= 1e-5
    assert [check.variant for check in verify_bundle(bundle(head))][-1] == "portable"


@pytest.mark.parametrize("head", HEADS)
def test_optimum_loads_the_folder_and_equals_eager(
    bundle: Callable[..., Bundle], folders: dict[str, Path], batch: Any, head: str
) -> None:
    loader, outputs = HEADS[head]
    model = getattr(optimum, f"ORTModelFor{loader}").from_pretrained(
        bundle(head).folder, file_name="model.onnx", provider="CPUExecutionProvider", local_files_only=True
    )
    expected = eager_outputs(folders[head], head, batch)
    outputs = model(**batch)
    for name in outputs:
        # The results of padding are undefined.
        counted = slice(None) if head == "classifier" else batch["attention_mask"].numpy() == 1
        np.testing.assert_allclose(outputs[name].numpy()[counted], expected[name][counted], rtol=0, atol=1e-4)


def test_sentence_transformers_loads_the_folder_and_gives_the_same_embeddings(bundle: Callable[..., Bundle]) -> None:
    from sentence_transformers import SentenceTransformer

    settings = {"file_name": "model.onnx", "provider": "CPUExecutionProvider"}
    folder = bundle("encoder").folder
    theirs = SentenceTransformer(str(folder), backend="onnx", model_kwargs=settings, local_files_only=True)
    with encort.load(folder) as ours:
        embeddings = theirs.encode(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(embeddings, ours.embed(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS])
def test_sentence_embeddings_are_pooled_as_the_bundle_says(
    folders: dict[str, Path], batch: Any, tmp_path: Path, pooling: Pooling, normalize: bool
) -> None:
    source = ExportSource.open([str(folders["encoder"])], pooling=[pooling], normalize=normalize)
    variant = write_portable(source, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / variant.file, providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(["sentence_embedding"], {name: tensor.numpy() for name, tensor in batch.items()})
    hidden = eager_outputs(folders["encoder"], "encoder", batch)["last_hidden_state"]
    mask = batch["attention_mask"].numpy()[..., None]
    expected = hidden[:, 0] if pooling is Pooling.CLS else (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-4)


def test_exporting_does_not_change_the_oracle(folders: dict[str, Path], batch: Any, tmp_path: Path) -> None:
    from encort.export.verification.oracle import Case, Oracle

    source = ExportSource.open([str(folders["classifier"])])
    case = Case("padded", {name: tensor.numpy() for name, tensor in batch.items()})
    before = Oracle.of(source)(case)
    write_portable(source, tmp_path)
    for name, array in Oracle.of(source)(case).items():
        np.testing.assert_array_equal(array, before[name])
    assert not source.checkpoints[0].model.training


def test_weights_too_large_for_one_file_are_stored_beside_it(
    folders: dict[str, Path], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_LARGEST_FILE", 10_000)
    folder = export_bundle(folders["encoder"], output, variants=["portable"]).folder
    (variant,) = Bundle.open(folder).manifest.variants
    assert variant.weights_file == "model.onnx_data"
    assert (folder / "model.onnx").stat().st_size < (folder / "model.onnx_data").stat().st_size
    with encort.load(folder) as model, encort.load(copied := shutil.copytree(folder, folder.parent / "moved")) as moved:
        np.testing.assert_array_equal(model.embed(TEXTS), moved.embed(TEXTS))
    assert (copied / "model.onnx_data").is_file()


def test_an_error_of_optimum_becomes_one_message(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("an operator is missing")

    monkeypatch.setattr("optimum.exporters.onnx.onnx_export_from_model", fail)
    refused(folders["encoder"], "Optimum cannot export .*bert.*an operator is missing", variants=["portable"])


def test_a_failing_portable_graph_is_left_out_unless_it_was_asked_for(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("optimum.exporters.onnx.onnx_export_from_model", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.WARNING, "encort"):
        bundle = export_bundle(folders["encoder"], output)
    assert "the bundle has no portable variant: Optimum cannot export" in caplog.text
    names = ["cpu-fp32", "cpu-fp32-ragged", "cpu-int8", "cpu-int8-ragged"]
    assert [variant.name for variant in bundle.manifest.variants] == names
    assert not any("model.onnx" in name for name in bundle.manifest.files)


def test_exporting_does_not_silence_the_callers_logging(
    bundle: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    bundle("encoder")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("another").warning("still heard")
    assert "still heard" in caplog.text


# Pooling by a pooler, which Optimum's graph of an encoder lacks.


def test_the_pooler_that_optimum_leaves_out_is_in_the_portable_graph(folders: dict[str, Path], tmp_path: Path) -> None:
    embeddings = []
    for variant in ("fp32", "portable"):
        bundle = export_bundle(folders["encoder"], tmp_path / variant, variants=[variant], pooling="pooler")
        with encort.load(bundle.folder) as model:
            embeddings.append(model.embed(TEXTS))
    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-5)


def test_a_bundle_that_pools_by_a_pooler_can_be_verified(bundle: Callable[..., Bundle]) -> None:
    checks = verify_bundle(bundle("encoder", pooling="pooler"))
    assert [check.variant for check in checks] == ["cpu-fp32", "cpu-fp32-ragged", "portable"]


# Architectures without an authored graph.


@pytest.fixture(scope="module")
def other_folder(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`other_folder(architecture, **settings)` saves a tiny checkpoint of an architecture without an authored graph."""

    def save(architecture: str, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        for file in encoder_checkpoint.glob("*.json"):
            shutil.copy(file, folder)
        shutil.copy(encoder_checkpoint / "vocab.txt", folder)
        size = json.loads((encoder_checkpoint / "config.json").read_text())["vocab_size"]
        sizes = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
        tokens = {"vocab_size": size, "max_position_embeddings": 64, "initializer_range": 0.3}
        config = transformers.AutoConfig.for_model(architecture, **sizes, **tokens, **settings)
        torch.manual_seed(6)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module", params=["albert", "deberta-v2"])
def other_checkpoint(request: pytest.FixtureRequest, other_folder: Callable[..., Path]) -> Path:
    return other_folder(request.param)


def test_another_architecture_gets_the_portable_graph_with_a_warning(
    other_checkpoint: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "encort"):
        bundle = export_bundle(other_checkpoint, output)
    assert "has the portable variant only" in caplog.text
    assert [variant.name for variant in bundle.manifest.variants] == ["portable"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(other_checkpoint)
    model = transformers.AutoModel.from_pretrained(other_checkpoint, attn_implementation="eager").eval()
    with encort.load(output) as loaded, torch.inference_mode():
        embeddings = loaded.embed([*TEXTS, ("my card", "is lost")])
        inputs = [*([text] for text in TEXTS), ("my card", "is lost")]
        expected = [
            model(**tokenizer(*texts, truncation=True, max_length=64, return_tensors="pt")).last_hidden_state.mean(1)
            for texts in inputs
        ]
    expected = torch.nn.functional.normalize(torch.cat(expected), dim=1).numpy()
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)
    assert [check.variant for check in verify_bundle(bundle)] == ["portable"]


@pytest.mark.parametrize("variants", [["fp32"], ["int8"], ["fp32", "portable"]], ids=" and ".join)
def test_another_architecture_has_no_other_graph(
    other_checkpoint: Path, refused: Callable[..., None], variants: list[str]
) -> None:
    refused(other_checkpoint, "has no authored graph, only the variant portable", variants=variants)


def test_another_architecture_has_a_limit_of_tokens(other_checkpoint: Path, refused: Callable[..., None]) -> None:
    refused(other_checkpoint, "max_length must be between", max_length=65)


def test_the_tokenizer_cannot_raise_the_limit_of_another_architecture(
    other_checkpoint: Path,
    refused: Callable[..., None],
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
) -> None:
    folder = checkpoint_copy(other_checkpoint)
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    refused(folder, "max_length must be between", max_length=100)


@pytest.mark.parametrize("architecture", ["roberta-prelayernorm", "xlm-roberta-xl", "data2vec-text"])
def test_relatives_of_roberta_have_no_position_for_padding(
    architecture: str, other_folder: Callable[..., Path], refused: Callable[..., None]
) -> None:
    folder = other_folder(architecture, pad_token_id=0, type_vocab_size=2)
    assert ExportSource.open([str(folder)]).max_length == 63
    refused(folder, "max_length must be between 3 and the model's 63 positions, got 64", max_length=64)


def test_several_heads_have_no_portable_graph(folders: dict[str, Path], refused: Callable[..., None]) -> None:
    heads = [folders["tagger"], folders["reader"]]
    refused(heads, "a portable graph holds one encoder", variants=["portable"])


def test_a_portable_bundle_with_a_head_predicts_from_the_shell(folders: dict[str, Path], tmp_path: Path) -> None:
    exported = export_bundle(folders["classifier"], tmp_path / "b", variants=["portable"])
    done = CliRunner().invoke(group, ["predict", str(exported.folder), "my card"])
    assert json.loads(done.stdout)["label"] in exported.manifest.heads[0].labels
    assert exported.manifest.embedding is None


def test_masks_are_finite_in_half_precisions(bundle: Callable[..., Bundle]) -> None:
    graph = onnx.load(bundle("encoder").folder / "model.onnx").graph
    constants = [
        numpy_helper.to_array(attribute.t)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    ]
    smallest = min(array.min() for array in constants if array.dtype == np.float32 and array.size)
    assert np.finfo(np.float16).min < smallest < -10_000
