import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encort.export.source.checkpoint import Checkpoint
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.errors import CheckpointError

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_pickled_weights_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def with_pickled_weights_beside_other_safetensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    with_pickled_weights_only(folder)
    save_file(weights, folder / "adapter.safetensors", metadata={"format": "pt"})


def with_remote_code(folder: Path) -> None:
    write(folder, "config.json", {**read(folder, "config.json"), "auto_map": {"AutoModel": "modeling.Own"}})


def with_remote_code_of_the_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    (folder / "own.py").write_text("raise AssertionError('this code was run')")
    write(folder, "tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own"] * 2}})


def with_nan(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["encoder.layer.1.output.dense.weight"][3, 4].fill_(torch.nan))


def with_infinity(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["embeddings.LayerNorm.bias"][0].fill_(torch.inf))


def without_one_weight(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("encoder.layer.2.attention.self.key.weight"))


def with_a_layer_too_many(folder: Path) -> None:
    write(folder, "config.json", {**read(folder, "config.json"), "num_hidden_layers": 4})


def with_another_width(folder: Path) -> None:
    write(folder, "config.json", {**read(folder, "config.json"), "hidden_size": 80})


def with_cut_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def with_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def with_a_list_as_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def without_tokenizer(folder: Path) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)


def with_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def with_a_larger_tokenizer(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(4)])
    tokenizer.save_pretrained(folder)


DAMAGES = {
    without_weights: "has no weights: no model.safetensors",
    with_pickled_weights_only: "pickled weights only.*safe_serialization",
    with_pickled_weights_beside_other_safetensors: "pickled weights only.*safe_serialization",
    with_remote_code: "needs code of its own",
    with_remote_code_of_the_tokenizer: "has no usable tokenizer: (?!this code was run)",
    with_nan: "encoder.layer.1.output.dense.weight holds NaN or infinity",
    with_infinity: "embeddings.LayerNorm.bias holds NaN or infinity",
    without_one_weight: "lacks weights.*encoder.layer.2.attention.self.key.weight",
    with_a_layer_too_many: "lacks weights.*encoder.layer.3",
    with_another_width: "cannot be loaded",
    with_cut_weights: "cannot be loaded",
    without_config: "has no config.json, so it is not a checkpoint",
    with_damaged_config: "config.json is not JSON",
    with_a_list_as_config: "config.json",
    without_tokenizer: "has no usable tokenizer",
    with_damaged_tokenizer: "has no usable tokenizer",
    with_a_larger_tokenizer: "the tokenizer has .* tokens, the model embeds",
}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


@pytest.fixture
def folder(encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path]) -> Path:
    return checkpoint_copy(encoder_checkpoint)


@pytest.mark.parametrize(("damage", "message"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])
def test_a_damaged_checkpoint_is_refused(
    damage: Callable[[Path], None], message: str, folder: Path, refused: Callable[..., None]
) -> None:
    damage(folder)
    refused(folder, message)


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.attention.self.query.bias",
        "bert.pooler.dense.weight",
        "classifier.weight",
        "classifier.bias",
    ],
)
def test_a_classifier_that_lacks_a_weight_is_refused(
    name: str, classifier_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], refused: Callable[..., None]
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    change_weights(folder, lambda weights: weights.pop(name))
    refused(folder, f"lacks weights.*{name}")


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "no/such/folder", "~/no-such-folder"])
def test_a_path_that_does_not_exist_is_refused(path: str, refused: Callable[..., None]) -> None:
    refused(path, f"there is no checkpoint folder {path}")


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "not a name!"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name: str, refused: Callable[..., None]) -> None:
    refused(name, f"{name} is neither a folder nor a model that the hub gives")


def test_a_file_is_not_a_checkpoint(folder: Path, refused: Callable[..., None]) -> None:
    refused(folder / "config.json", "there is no checkpoint folder")


def test_a_hub_id_is_downloaded_without_pickles_and_remembers_its_commit(
    encoder_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {}

    def snapshot_download(name: str, **options: Any) -> str:
        request.update(options, name=name)
        return str(encoder_checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    checkpoint = Checkpoint.open("somebody/model", revision="main")
    assert (checkpoint.name, checkpoint.revision) == ("somebody/model", encoder_checkpoint.name)
    assert (request["name"], request["revision"]) == ("somebody/model", "main")
    files = ["README.md", "model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors"]
    pickles = ["pytorch_model.bin", "1_Pooling/pytorch_model.bin"]
    asked = [file for file in files + pickles if any(fnmatch(file, pattern) for pattern in request["allow_patterns"])]
    assert asked == files


def test_tokens_beyond_the_tokenizer_are_allowed_up_to_the_embedding_table(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one", "two", "three"])
    tokenizer.save_pretrained(folder)
    assert len(Checkpoint.open(str(folder)).tokenizer) == read(folder, "config.json")["vocab_size"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_load_as_float32(dtype: torch.dtype, folder: Path) -> None:
    transformers.AutoModel.from_pretrained(folder).to(dtype).save_pretrained(folder)
    checkpoint = Checkpoint.open(str(folder))
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {torch.float32}
    assert {array.dtype for array in checkpoint.weights.values()} == {np.dtype(np.float32)}


def test_sharded_weights_load(folder: Path) -> None:
    expected = Checkpoint.open(str(folder)).weights
    model = transformers.AutoModel.from_pretrained(folder)
    without_weights(folder)
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name, array in Checkpoint.open(str(folder)).weights.items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_model_is_in_eval_mode(encoder_checkpoint: Path) -> None:
    assert not any(module.training for module in Checkpoint.open(str(encoder_checkpoint)).model.modules())


def test_an_encoder_has_no_labels(encoder_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(str(encoder_checkpoint))
    assert (checkpoint.task, checkpoint.labels) == (Task.FEATURE_EXTRACTION, [])


def test_labels_keep_their_order_when_10_sorts_before_9(make_checkpoint: Callable[..., Path]) -> None:
    labels = [f"label {20 - number}" for number in range(12)]
    checkpoint = Checkpoint.open(str(make_checkpoint(labels=labels)))
    assert (checkpoint.task, checkpoint.labels) == (Task.TEXT_CLASSIFICATION, labels)


def test_equal_labels_are_refused(make_checkpoint: Callable[..., Path], refused: Callable[..., None]) -> None:
    refused(make_checkpoint(labels=["yes", "no", "yes"]), "yes")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, "word"), ("first", "word"), ("SIMPLE", "simple"), ("average", "average"), ("max", "max"), ("none", "none")],
)
def test_the_aggregation_strategy_is_kept(
    setting: str | None, expected: str, make_checkpoint: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = make_checkpoint(labels=["O", "B-x"])
    edit_json(folder / "config.json", architectures=["BertForTokenClassification"], aggregation_strategy=setting)
    assert ExportSource.open([str(folder)]).heads[0].aggregation == expected


def test_an_unknown_aggregation_strategy_is_refused(
    make_checkpoint: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = make_checkpoint(labels=["O", "B-x"])
    edit_json(folder / "config.json", architectures=["BertForTokenClassification"], aggregation_strategy="mean")
    with pytest.raises(CheckpointError, match="aggregation_strategy must be one of word, none, simple"):
        ExportSource.open([str(folder)])


def test_tags_of_no_known_scheme_are_refused(
    make_checkpoint: Callable[..., Path], edit_json: Callable[..., None], refused: Callable[..., None]
) -> None:
    folder = make_checkpoint(labels=["O", "b-loc", "ORG"])
    edit_json(folder / "config.json", architectures=["BertForTokenClassification"])
    refused(folder, "id2label of its config.json: the tags b-loc and ORG are not of one scheme")


def test_labels_that_are_not_unicode_are_refused(
    make_checkpoint: Callable[..., Path], refused: Callable[..., None]
) -> None:
    refused(make_checkpoint(labels=["yes", "no\ud800"]), r"the label 'no\\ud800' has an unpaired surrogate")


@pytest.mark.parametrize(
    ("positions", "tokenizer_limit", "expected"), [(64, 20, 20), (30, 64, 30), (64, int(1e30), 64)]
)
def test_the_smallest_limit_is_the_max_length(
    positions: int,
    tokenizer_limit: int,
    expected: int,
    make_checkpoint: Callable[..., Path],
    edit_json: Callable[..., None],
) -> None:
    folder = make_checkpoint(max_position_embeddings=positions)
    edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer_limit)
    assert ExportSource.open([str(folder)]).max_length == expected


@pytest.mark.parametrize(("setting", "expected"), [(12, 12), (None, 64), (512, 64)])
def test_sentence_transformers_files_may_set_a_smaller_limit(setting: int | None, expected: int, folder: Path) -> None:
    write(folder, "sentence_bert_config.json", {"max_seq_length": setting})
    assert ExportSource.open([str(folder)]).max_length == expected


TASKS = {
    "one label of many": ({"labels": ["a", "b"]}, Task.TEXT_CLASSIFICATION),
    "one label of many, said so": (
        {"labels": ["a", "b"], "problem_type": "single_label_classification"},
        Task.TEXT_CLASSIFICATION,
    ),
    "many labels at once": (
        {"labels": ["a", "b"], "problem_type": "multi_label_classification"},
        Task.MULTI_LABEL_CLASSIFICATION,
    ),
    "one label or none": (
        {"labels": ["only"], "problem_type": "multi_label_classification"},
        Task.MULTI_LABEL_CLASSIFICATION,
    ),
    "a number": ({"labels": ["only"], "problem_type": "regression"}, Task.TEXT_REGRESSION),
    # transformers trains a single label as a regression.
    "one label": ({"labels": ["only"]}, Task.TEXT_REGRESSION),
}


@pytest.mark.parametrize(("settings", "task"), TASKS.values(), ids=TASKS)
def test_labels_and_problem_type_decide_the_task(
    settings: dict[str, Any], task: Task, make_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = Checkpoint.open(str(make_checkpoint(**settings)))
    assert (checkpoint.task, checkpoint.labels) == (task, settings["labels"])


def test_one_label_without_names_is_a_number(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(labels=["only"])
    settings = read(folder, "config.json")
    del settings["id2label"], settings["label2id"]
    write(folder, "config.json", {**settings, "num_labels": 1})
    checkpoint = Checkpoint.open(str(folder))
    assert (checkpoint.task, checkpoint.labels) == (Task.TEXT_REGRESSION, ["LABEL_0"])


CONTRADICTIONS = {
    "two numbers": ({"labels": ["a", "b"], "problem_type": "regression"}, "gives 2 numbers per text"),
    "one class": (
        {"labels": ["only"], "problem_type": "single_label_classification"},
        r"1 label\(s\) for text-classification, which needs at least 2|requires `num_labels > 1`",
    ),
}


@pytest.mark.parametrize(("settings", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_classifier_with_labels_that_contradict_its_problem_type_is_refused(
    settings: dict[str, Any], message: str, make_checkpoint: Callable[..., Path], refused: Callable[..., None]
) -> None:
    refused(make_checkpoint(**settings), message)


def test_an_unknown_problem_type_is_refused_with_the_known_ones(
    classifier_checkpoint: Path,
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
    refused: Callable[..., None],
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    edit_json(folder / "config.json", problem_type="ranking")
    refused(folder, "problem_type 'ranking', expected one of single_label_classification, multi_label.*, regression")


def test_a_tokenizer_saved_by_transformers_5_is_read(
    classifier_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], edit_json: Callable[..., None]
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    edit_json(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend", model_input_names=names)
    expected = Checkpoint.open(str(classifier_checkpoint)).tokenizer("my card", "hello")
    assert dict(Checkpoint.open(str(folder)).tokenizer("my card", "hello")) == dict(expected)


def test_an_unknown_head_is_refused_instead_of_dropped(
    classifier_checkpoint: Path,
    checkpoint_copy: Callable[[Path], Path],
    edit_json: Callable[..., None],
    refused: Callable[..., None],
) -> None:
    folder = checkpoint_copy(classifier_checkpoint)
    edit_json(folder / "config.json", architectures=["BertForMultipleChoice"])
    refused(folder, "BertForMultipleChoice, and its head cannot be exported")
