"""`config.json` of strangers: each mistake is one clear error, before memory is taken."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import transformers

from encort.runtime.common.checkpoints.config import make_config, read_settings
from encort.runtime.common.errors import CheckpointError

BERT = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "layer_norm_eps": 1e-12}


def made(**changes: Any) -> Any:
    return make_config("folder", {**BERT, **changes}, classes=transformers.CONFIG_MAPPING, installed="4.57.6")


NONSENSE = {
    "architectures": [5, "BertModel", {"a": 1}, [5], [["BertModel"]], [None]],
    "id2label": [7, "yes", ["a"], {"0": ["a"]}, {"0": {"a": 1}}, {"0": None}, {"a": "b"}, {"0": "a", "2": "b"}],
    "label2id": [7, ["a"]],
    "problem_type": [5, "ranking", ["regression"]],
    "model_type": [None, 5, "", ["bert"], {"bert": 1}],
    "layer_norm_eps": ["x", None, True, [], {"a": 1}, -1.0, 0, float("nan"), float("inf")],
    "hidden_size": ["24", None, {"size": 24}, 2**40, float("inf")],
    "hidden_act": [5, ["gelu"], {"gelu": 1}],
    "num_hidden_layers": [1_000_000, -1, "2", 2.5, None],
    "num_labels": [10**9, "two"],
    "pad_token_id": ["0", {"id": 0}],
    "use_cache": ["yes", 5, {"a": 1}],
    "is_decoder": [True, 1],
    "quantization_config": [{"quant_method": "fp8", "weight_block_size": [128, 128]}, "int8"],
    "add_cross_attention": [True],
}
CASES = [
    pytest.param(setting, value, id=f"{setting}={value!r}"[:60])
    for setting, values in NONSENSE.items()
    for value in values
]


@pytest.mark.parametrize(("setting", "value"), [*CASES, ("n_layers", 10**6), ("max_position_embeddings", "x")])
def test_nonsense_is_refused_by_the_name_of_its_setting(setting: str, value: Any) -> None:
    changes = {"model_type": "distilbert", setting: value} if setting == "n_layers" else {setting: value}
    with pytest.raises(CheckpointError, match="label" if setting == "id2label" else setting) as refusal:
        made(**changes)
    assert len(str(refusal.value)) < 400


SENSE = {
    "names of integers": {"id2label": {"0": 0, "1": 1}},
    "no labels": {"id2label": {}},
    "one label": {"num_labels": 1},
    "a list of token ids": {"eos_token_id": [1, 2]},
    "no padding": {"pad_token_id": None},
    "a whole number for a float": {"hidden_dropout_prob": 0},
    "an unknown setting": {"notes": {"deep": [1, {"a": None}]}},
    "layers by a number each": {"model_type": "longformer", "attention_window": [4, 8], "num_hidden_layers": 2},
}


@pytest.mark.parametrize("changes", SENSE.values(), ids=SENSE)
def test_what_transformers_accepts_is_accepted(changes: dict[str, Any]) -> None:
    assert made(**changes).hidden_size == 24


def test_settings_for_the_form_of_outputs_are_left_out() -> None:
    settings = {"return_dict": False, "output_attentions": True, "torchscript": True, "chunk_size_feed_forward": 3}
    config, default = made(**settings).to_dict(), made().to_dict()
    assert {name: config.get(name) for name in settings} == {name: default.get(name) for name in settings}


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"architecture 'nomic', which transformers 4\.57\.6 does not know"):
        made(model_type="nomic")


def test_the_settings_of_an_inner_encoder_are_checked_too() -> None:
    with pytest.raises(CheckpointError, match=r"folder \(encoder1\): config.json has layer_norm_eps 'x'"):
        made(encoder1={**BERT, "layer_norm_eps": "x"})


def test_an_error_of_the_class_is_translated() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used \("):
        made(dtype="float99")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"a":' * 100_000, "is not JSON"),
        ("[]", "holds a list, expected a dict"),
        ("5", "holds a int, expected a dict"),
        (b"\xff\xfe\x00", "is not JSON"),
    ],
)
def test_a_file_without_settings_is_refused(content: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=message):
        read_settings(tmp_path)


def test_a_file_far_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(40 * 2**30)  # sparse: it takes no space on the disk
    with pytest.raises(CheckpointError, match="it has 42,949,672,960 bytes, and files of this kind have at most"):
        read_settings(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="is a pipe, socket or device, not a file"):
        read_settings(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json, so it is not a checkpoint"):
        read_settings(tmp_path)


@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_is_refused_with_the_way_out(has_config: bool, tmp_path: Path) -> None:
    if has_config:
        (tmp_path / "config.json").write_text(json.dumps(BERT))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds an adapter of PEFT, .*merge_and_unload\(\)"):
        read_settings(tmp_path)


def test_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    assert read_settings(tmp_path) == BERT
