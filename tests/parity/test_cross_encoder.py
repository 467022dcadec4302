"""A cross-encoder gives the scores of `CrossEncoder.predict` of sentence-transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

import encort
from encort.export.exporter import export_bundle
from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.manifest import Activation, Task
from encort.runtime.common.errors import CheckpointError
from tests.conftest import MakeCheckpoint

PAIRS = [("my card is lost", "hello"), ("hello", "my pin"), ("", "card " * 80), ("the card", "the card is lost")]
FILE = "config_sentence_transformers.json"


def save(folder: Path, target: Path, **options: Any) -> Path:
    """Save a checkpoint as sentence-transformers does."""
    CrossEncoder(str(folder), device="cpu", **options).save_pretrained(str(target))
    return target


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def one_label(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    return save(make_checkpoint(labels=["LABEL_0"], seed=31), tmp_path / "saved")


@pytest.fixture
def three_labels(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    return save(make_checkpoint(labels=["no", "maybe", "yes"], seed=32), tmp_path / "saved")


def predict(folder: Path) -> Any:
    return CrossEncoder(str(folder), device="cpu").predict(PAIRS, show_progress_bar=False)


def head_of(folder: Path) -> tuple[Task, Activation | None]:
    checkpoint = Checkpoint.open(str(folder))
    return checkpoint.task, checkpoint.activation


def scores(folder: Path, tmp_path: Path) -> Any:
    bundle = export_bundle(folder, tmp_path / "bundle", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as model:
        return model.score(PAIRS)


@pytest.mark.parametrize("activation", [None, torch.nn.Sigmoid(), torch.nn.Identity(), torch.nn.Tanh()], ids=str)
def test_one_label_gives_the_scores_of_predict(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, activation: Any
) -> None:
    folder = save(make_checkpoint(labels=["LABEL_0"], seed=31), tmp_path / "saved", activation_fn=activation)
    expected = predict(folder)
    assert np.ptp(expected) > 0.01
    found = scores(folder, tmp_path)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "4.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
    ],
    ids=["version 4", "version 3"],
)
def test_the_activation_of_older_versions_is_read(one_label: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    (one_label / FILE).unlink()
    edit(one_label / "config.json", **settings)
    expected = predict(one_label)
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.TANH)
    assert scores(one_label, tmp_path) == pytest.approx(expected, abs=1e-4)


def test_a_version_of_sentence_transformers_alone_means_the_default_activation(one_label: Path, tmp_path: Path) -> None:
    (one_label / FILE).unlink()
    edit(one_label / "config.json", sentence_transformers={"version": "4.1.0"})
    expected = predict(one_label)
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.SIGMOID)
    assert scores(one_label, tmp_path) == pytest.approx(expected, abs=1e-4)


def test_the_file_of_sentence_transformers_decides_over_the_older_settings(one_label: Path) -> None:
    edit(one_label / "config.json", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.SIGMOID)


@pytest.mark.parametrize("change", [{"activation_fn": None}, {"activation_fn": "torch.nn.Sigmoid"}], ids=str)
def test_one_label_of_a_cross_encoder_has_a_sigmoid_by_default(one_label: Path, change: dict[str, Any]) -> None:
    edit(one_label / FILE, **change)
    expected = predict(one_label)
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.SIGMOID)
    assert (expected > 0).all()


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_one_label_is_a_score_for_every_problem_type(one_label: Path, problem: str) -> None:
    edit(one_label / "config.json", problem_type=problem)
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.SIGMOID)


def test_a_checkpoint_of_transformers_has_no_activation(make_checkpoint: MakeCheckpoint) -> None:
    assert head_of(make_checkpoint(labels=["LABEL_0"], seed=31)) == (Task.TEXT_REGRESSION, None)


def test_several_labels_without_an_activation_are_classes(three_labels: Path) -> None:
    assert head_of(three_labels) == (Task.TEXT_CLASSIFICATION, Activation.IDENTITY)


@pytest.mark.parametrize("name", ["Sigmoid", "Softmax"])
@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
def test_several_labels_have_the_probabilities_of_predict(three_labels: Path, tmp_path: Path, name: str) -> None:
    edit(three_labels / FILE, activation_fn=f"torch.nn.modules.activation.{name}")
    bundle = export_bundle(three_labels, tmp_path / "bundle", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as model:
        assert model.head().activation == name.lower()
        found = [list(result.scores.values()) for result in model.classify(PAIRS)]
    assert np.array(found) == pytest.approx(predict(three_labels), abs=1e-4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "torch.nn.modules.activation.GELU",
            r"GELU .*torch.nn.Identity, torch.nn.Sigmoid, torch.nn.Tanh",
        ),
        ("torch.nn.modules.activation.Softmax", "the activation Softmax"),
        ("my_package.Scaled", "code of its own"),
        (5, "5 to its logits"),
    ],
)
def test_other_functions_are_refused(one_label: Path, function: Any, message: str) -> None:
    edit(one_label / FILE, activation_fn=function)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(str(one_label))


@pytest.mark.parametrize("value", [5, "Sigmoid", ["activation_fn"]])
def test_settings_that_make_no_sense_are_refused(one_label: Path, value: Any) -> None:
    (one_label / FILE).unlink()
    edit(one_label / "config.json", sentence_transformers=value)
    with pytest.raises(CheckpointError, match=r"sentence_transformers in config\.json is"):
        Checkpoint.open(str(one_label))


def test_tanh_of_several_labels_is_refused(three_labels: Path) -> None:
    edit(three_labels / FILE, activation_fn="torch.nn.Tanh")
    with pytest.raises(CheckpointError, match=r"the activation Tanh .* torch\.nn\.Softmax"):
        Checkpoint.open(str(three_labels))


def test_a_head_of_another_kind_has_no_activation(encoder_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_checkpoint, tmp_path / "copy")
    (folder / FILE).write_text(json.dumps({"model_type": "SentenceTransformer", "activation_fn": "torch.nn.GELU"}))
    assert head_of(folder) == (Task.FEATURE_EXTRACTION, None)


def test_a_default_prompt_of_a_cross_encoder_is_refused(one_label: Path) -> None:
    edit(one_label / FILE, prompts={"query": "q: "}, default_prompt_name="query")
    with pytest.raises(CheckpointError, match="puts the prompt 'query' before pairs"):
        Checkpoint.open(str(one_label))
    edit(one_label / FILE, default_prompt_name=None)
    assert head_of(one_label) == (Task.TEXT_REGRESSION, Activation.SIGMOID)


def test_a_cross_encoder_of_several_modules_is_refused(encoder_checkpoint: Path, tmp_path: Path) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    scorer = modules.Dense(40, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    parts = [modules.Transformer(str(encoder_checkpoint)), modules.Pooling(40, "cls"), scorer]
    CrossEncoder(modules=parts, device="cpu").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match="module_output_name is 'scores'"):
        Checkpoint.open(str(tmp_path / "saved"))
