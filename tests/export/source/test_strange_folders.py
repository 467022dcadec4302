"""Checkpoints whose files do not fit each other, or name paths: refused before memory is taken."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from encort.export.source.checkpoint import Checkpoint
from encort.runtime.common.errors import CheckpointError
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings

INDEX = "model.safetensors.index.json"


def export(folder: Path) -> None:
    Checkpoint.open(str(folder))


def train(folder: Path) -> None:
    pretrained = Pretrained.open(str(folder), TrainingSettings())
    pretrained.network(transformers.AutoModelForSequenceClassification)


rooms = pytest.mark.parametrize("use", [export, train])


@pytest.fixture
def folder(encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path]) -> Path:
    return checkpoint_copy(encoder_checkpoint)


@pytest.fixture
def sharded(folder: Path) -> Path:
    """A checkpoint whose weights are in several files."""
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# The index of files with weights.


@rooms
def test_weights_in_several_files_are_read(use: Callable[[Path], None], sharded: Path) -> None:
    use(sharded)


@rooms
@pytest.mark.parametrize("prefix", ["../", "/", "inside/", "./", "inside/../"])
def test_an_index_names_no_path(use: Callable[[Path], None], prefix: str, sharded: Path) -> None:
    names = json.loads((sharded / INDEX).read_text())["weight_map"]
    shard = next(iter(names.values()))
    for target in (sharded.parent, sharded / "inside"):
        target.mkdir(exist_ok=True)
        (target / shard).write_bytes((sharded / shard).read_bytes())
    named = f"{sharded.parent}/{shard}" if prefix == "/" else f"{prefix}{shard}"
    edit(sharded / INDEX, weight_map={weight: named if name == shard else name for weight, name in names.items()})
    with pytest.raises(CheckpointError, match="is no file of its folder"):
        use(sharded)


@rooms
@pytest.mark.parametrize("weight_map", [None, 5, [], {}, {"a": 5}, {"a": None}, {"a": ["model.safetensors"]}])
def test_an_index_without_files_is_refused(use: Callable[[Path], None], weight_map: Any, sharded: Path) -> None:
    edit(sharded / INDEX, weight_map=weight_map)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        use(sharded)


@rooms
def test_a_missing_file_of_the_index_is_named(use: Callable[[Path], None], sharded: Path) -> None:
    lost = sorted(sharded.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=f"names '{lost.name}', which the folder lacks"):
        use(sharded)


@rooms
def test_weights_that_the_index_does_not_list_are_named(use: Callable[[Path], None], sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[0]
    weights = safetensors.torch.load_file(shard)
    safetensors.torch.save_file(weights | {"crf.transitions": torch.ones(3)}, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{shard.name} has weights that {INDEX} does not list.*crf.transitions"):
        use(sharded)


@rooms
@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "{"])
def test_a_damaged_index_is_refused(use: Callable[[Path], None], content: str, sharded: Path) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=INDEX):
        use(sharded)


# Settings of another model.


HUGE = {
    "hidden_size": 5_000_000,
    "intermediate_size": 500_000_000,
    "max_position_embeddings": 2**30,
    "vocab_size": 2**30,
    "num_hidden_layers": 200,
}


@rooms
@pytest.mark.parametrize("setting", HUGE)
def test_a_model_far_larger_than_its_weights_is_refused_before_memory_is_taken(
    use: Callable[[Path], None], setting: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "config.json", **{setting: HUGE[setting]})
    monkeypatch.delattr(transformers.PreTrainedModel, "from_pretrained")
    with pytest.raises(CheckpointError, match=r"lacks weights .* config.json describes a model of [\d,]+ parameters"):
        use(folder)


NO_MODEL = {
    "heads that do not divide the width": {"num_attention_heads": 7},
    "no heads": {"num_attention_heads": 0},
    "a negative width": {"hidden_size": -40},
    "half a width": {"intermediate_size": 72.5},
    "an unknown activation": {"hidden_act": "gelu_of_tomorrow"},
    "a width that no tensor has": {"hidden_size": 2**31},
}


@rooms
@pytest.mark.parametrize("changes", NO_MODEL.values(), ids=NO_MODEL)
def test_settings_that_describe_no_model_are_refused(
    use: Callable[[Path], None], changes: dict[str, Any], folder: Path
) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=str(folder)):
        use(folder)


@rooms
@pytest.mark.parametrize(
    "changes", [{"layer_norm_eps": "x"}, {"architectures": 5}, {"id2label": 7}, {"num_hidden_layers": 1_000_000}]
)
def test_nonsense_is_refused_by_name(use: Callable[[Path], None], changes: dict[str, Any], folder: Path) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        use(folder)


@rooms
@pytest.mark.parametrize("content", [b"", b"half of a header", b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"{}"])
def test_weights_that_are_none_are_refused(use: Callable[[Path], None], content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=str(folder)):
        use(folder)


# Settings of a newer transformers.


@pytest.mark.skipif(hasattr(transformers.ModernBertConfig(), "rope_parameters"), reason="it has the newer names itself")
@rooms
def test_a_newer_name_of_a_setting_is_read(use: Callable[[Path], None], folder: Path) -> None:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    config = transformers.ModernBertConfig(
        **{name: index for index, name in enumerate(names)},
        **{"vocab_size": size, "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2},
        **{"intermediate_size": 48, "max_position_embeddings": 64, "global_rope_theta": 20_000.0},
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    expected = transformers.AutoModel.from_pretrained(folder).eval()
    rope = {"full_attention": {"rope_theta": 20_000.0, "rope_type": "default"}}
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    edit(folder / "config.json", rope_parameters=rope, global_rope_theta=160_000.0, transformers_version="5.24.0")
    use(folder)
    if use is export:
        model = Checkpoint.open(str(folder)).model
        ids = torch.arange(5, 25)[None]
        torch.testing.assert_close(model(ids).last_hidden_state, expected(ids).last_hidden_state)


def test_training_does_not_start_from_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/model"}')
    with pytest.raises(CheckpointError, match="holds an adapter of PEFT"):
        train(folder)


@rooms
def test_a_tokenizer_saved_by_transformers_5_is_read(use: Callable[[Path], None], folder: Path) -> None:
    edit(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend", extra_special_tokens=["[x]"])
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    use(folder)


def test_trained_weights_do_not_name_code_that_did_not_make_them(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModel": "own.Own"})
    with pytest.raises(CheckpointError, match="needs code of its own"):
        export(folder)
    pretrained = Pretrained.open(str(folder), TrainingSettings())
    trained = folder.parent / "trained"
    pretrained.network(transformers.AutoModelForSequenceClassification).save_pretrained(trained)
    pretrained.saved_tokenizer.save_pretrained(trained)
    export(trained)


# Kinds and sizes of files.

READ = [
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "generation_config.json", "added_tokens.json", "spiece.model", "chat_template.jinja"),
]


@rooms
@pytest.mark.parametrize("name", READ)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_at_once(use: Callable[[Path], None], name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: .* is a pipe, socket or device"):
        use(folder)


@rooms
@pytest.mark.parametrize("name", READ)
def test_a_folder_in_place_of_a_file_is_refused(use: Callable[[Path], None], name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: .* is a folder"):
        use(folder)


@rooms
@pytest.mark.parametrize("name", READ)
def test_a_huge_sparse_file_is_refused_at_once(use: Callable[[Path], None], name: str, folder: Path) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(40 * 2**30)
    with pytest.raises(CheckpointError, match=r"has 42,949,672,960 bytes|cannot be (loaded|trained)"):
        use(folder)


@rooms
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "modules.json"])
def test_json_that_is_nested_too_deeply_is_refused(use: Callable[[Path], None], name: str, folder: Path) -> None:
    if name == "modules.json" and use is train:
        pytest.skip("training does not read it")
    (folder / name).write_text("[" * 100_000)
    with pytest.raises(CheckpointError):
        use(folder)
