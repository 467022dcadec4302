"""Architectures without an authored graph get a traced one, by the exporter of transformers or by Optimum."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers

import encort
from encort.export import traced
from encort.export.exporter import export_bundle
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import CheckpointError, MissingExtraError
from encort.runtime.common.extras import is_installed
from encort.runtime.verification.golden import verify_bundle

TEXTS = ["my card is lost", "hello", "안녕하세요 하이", "play the card, change my pin " * 3, "a"]
SIZES = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 72}
OTHERS: dict[str, dict[str, Any]] = {
    "roformer": {"embedding_size": 24},
    "rembert": {"input_embedding_size": 24, "output_embedding_size": 24},
}
HAS_TRANSFORMERS = is_installed("transformers.exporters.exporter_onnx") and is_installed("onnxscript")
needs_exporter = pytest.mark.skipif(
    not (HAS_TRANSFORMERS or is_installed("optimum.exporters.onnx")), reason="no exporter is installed: encort[trace]"
)


@pytest.fixture(scope="module")
def other_folder(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`other_folder(architecture, **settings)` saves a tiny checkpoint of an architecture without an authored graph."""

    def save(architecture: str, *, loader: str = "AutoModel", **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        for file in encoder_checkpoint.glob("*.json"):
            shutil.copy(file, folder)
        shutil.copy(encoder_checkpoint / "vocab.txt", folder)
        size = json.loads((encoder_checkpoint / "config.json").read_text())["vocab_size"]
        tokens = {"vocab_size": size, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0}
        config = transformers.AutoConfig.for_model(architecture, **{**SIZES, **tokens, **settings})
        torch.manual_seed(6)
        getattr(transformers, loader).from_config(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module")
def roformer(other_folder: Callable[..., Path]) -> Path:
    """Return a checkpoint of an architecture without an authored graph. It is shared: copy it before you change it."""
    return other_folder("roformer", **OTHERS["roformer"])


@needs_exporter
@pytest.mark.parametrize("architecture", OTHERS)
def test_another_architecture_gets_the_portable_graph_with_a_warning(
    architecture: str, other_folder: Callable[..., Path], output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = other_folder(architecture, **OTHERS[architecture])
    with caplog.at_level(logging.WARNING):
        bundle = export_bundle(checkpoint, output)
        logging.getLogger("another").warning("still heard")
    assert "has the portable variant only" in caplog.text
    assert "still heard" in caplog.text
    assert [variant.name for variant in bundle.manifest.variants] == ["portable"]
    check_embeddings(checkpoint, output)
    check_graph(bundle)
    assert [check.variant for check in verify_bundle(bundle)] == ["portable"]


def check_embeddings(checkpoint: Path, bundle: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    settings: dict[str, Any] = {"truncation": True, "max_length": 64, "return_tensors": "pt"}
    settings["return_token_type_ids"] = getattr(model.config, "type_vocab_size", 1) > 1
    with encort.load(bundle) as loaded, torch.inference_mode():
        embeddings = loaded.embed([*TEXTS, ("my card", "is lost")])
        inputs = [*([text] for text in TEXTS), ("my card", "is lost")]
        expected = [model(**tokenizer(*texts, **settings)).last_hidden_state.mean(1) for texts in inputs]
    expected = torch.nn.functional.normalize(torch.cat(expected), dim=1).numpy()
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


def check_graph(bundle: Bundle) -> None:
    """Check that the graph has standard operators, and the axes of other graphs."""
    model = onnx.load(bundle.folder / "model.onnx")
    assert {imported.domain for imported in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} <= {""}
    assert not model.functions
    (variant,) = bundle.manifest.variants
    assert set(map(tuple, variant.inputs.values())) == {("batch", "sequence")}
    hidden = variant.outputs["last_hidden_state"]
    assert hidden[:2] == ["batch", "sequence"]
    assert variant.outputs["sentence_embedding"] == ["batch", hidden[2]]


@needs_exporter
@pytest.mark.parametrize(
    ("loader", "outputs"),
    [
        ("AutoModelForSequenceClassification", {"logits": ["batch", "3"]}),
        (
            "AutoModelForQuestionAnswering",
            {"start_logits": ["batch", "sequence"], "end_logits": ["batch", "sequence"]},
        ),
    ],
)
def test_a_traced_head_gives_its_logits(
    loader: str, outputs: dict[str, list[str]], other_folder: Callable[..., Path], output: Path
) -> None:
    labels = {} if "QuestionAnswering" in loader else {"id2label": {0: "O", 1: "B-x", 2: "B-y"}}
    folder = other_folder("roformer", loader=loader, **labels, **OTHERS["roformer"])
    bundle = export_bundle(folder, output)
    (variant,) = bundle.manifest.variants
    assert variant.outputs == outputs
    assert bundle.manifest.embedding is None
    assert verify_bundle(bundle)
    text = ("my card?", "it is lost") if "QuestionAnswering" in loader else "my card is lost"
    with encort.load(output) as model:
        assert len(model.predict([text])) == 1


@needs_exporter
def test_tracing_does_not_change_the_oracle(roformer: Path) -> None:
    source = ExportSource.open([str(roformer)])
    ids = np.arange(12).reshape(2, 6)
    case = Case("two texts", {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0})
    before = Oracle.of(source)(case)
    traced.trace(source)
    for name, array in Oracle.of(source)(case).items():
        np.testing.assert_array_equal(array, before[name])
    assert not source.checkpoints[0].model.training


@needs_exporter
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("gpt2", {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}),
        ("t5", {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_kv": 4, "d_ff": 8}),
    ],
)
def test_a_model_that_is_no_encoder_is_refused(
    name: str, sizes: dict[str, int], other_folder: Callable[..., Path], refused: Callable[..., None]
) -> None:
    refused(other_folder(name, **sizes), "encort exports encoders only", max_length=64)


def test_an_error_of_an_exporter_becomes_one_message(
    roformer: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("an operator is missing")

    monkeypatch.setattr(traced, "_installed_exporter", lambda _: fail)
    refused(roformer, "cannot be traced: an operator is missing")


@pytest.mark.parametrize(("is_older", "extra"), [(False, "trace"), (True, "optimum")])
def test_a_missing_exporter_names_the_extra_for_the_installed_transformers(
    roformer: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *, is_older: bool, extra: str
) -> None:
    monkeypatch.setattr(traced, "is_older", lambda _: is_older)
    monkeypatch.setattr("encort.runtime.common.extras.is_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=rf'pip install "encort\[{extra}\]"'):
        export_bundle(roformer, output)
    assert not output.exists()


def test_several_heads_on_another_architecture_are_refused(roformer: Path, output: Path) -> None:
    heads = []
    for task in ("TokenClassification", "SequenceClassification"):
        heads.append(shutil.copytree(roformer, output.parent / task))
        getattr(transformers, f"AutoModelFor{task}").from_pretrained(roformer).save_pretrained(heads[-1])
    with pytest.raises(CheckpointError, match="export each one alone"):
        export_bundle(heads, output)


def test_another_architecture_has_a_limit_of_tokens(roformer: Path, refused: Callable[..., None]) -> None:
    refused(roformer, "max_length must be between", max_length=65)


def test_the_tokenizer_cannot_raise_the_limit_of_another_architecture(
    roformer: Path,
    refused: Callable[..., None],
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
) -> None:
    folder = checkpoint_copy(roformer)
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    refused(folder, "max_length must be between", max_length=100)


@pytest.mark.parametrize("architecture", ["roberta-prelayernorm", "xlm-roberta-xl", "data2vec-text"])
def test_relatives_of_roberta_have_no_position_for_padding(
    architecture: str, other_folder: Callable[..., Path], refused: Callable[..., None]
) -> None:
    folder = other_folder(architecture, type_vocab_size=2)
    assert ExportSource.open([str(folder)]).max_length == 63
    refused(folder, "max_length must be between 3 and the model's 63 positions, got 64", max_length=64)
