import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encort.runtime.common.errors import CheckpointError
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from tests.builders import bert_tokenizer

SIZES = {
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 34,
}
HEAD = transformers.AutoModelForSequenceClassification
LONG = ["my card is lost " * 100]


def opened(
    folder: Path | str, *, from_scratch: bool = False, changes: dict[str, Any] | None = None, **settings: Any
) -> Pretrained:
    """Open an encoder with these settings of the training."""
    return Pretrained.open(str(folder), TrainingSettings(**settings), from_scratch=from_scratch, config_changes=changes)


@pytest.fixture
def copy(tiny_encoder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_encoder, tmp_path / "copy")


@pytest.fixture
def bare(tiny_encoder: Path, tmp_path: Path) -> Path:
    """Return a folder with settings and vocabulary, without weights."""
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_encoder / name, tmp_path / "bare")
    return tmp_path / "bare"


@pytest.fixture
def of_architecture(bare: Path) -> Callable[..., Path]:
    """Return `of_architecture(name, **settings)`, a folder with settings of that architecture and a tokenizer."""

    def make(name: str, **settings: Any) -> Path:
        config = transformers.AutoConfig.for_model(name, **settings)
        config.vocab_size = json.loads((bare / "config.json").read_text())["vocab_size"]
        # [PAD] has the id that the architecture expects, if the vocabulary allows it.
        config.pad_token_id = min(config.pad_token_id or 0, 1)
        words = (bare / "vocab.txt").read_text().splitlines()
        words.insert(config.pad_token_id, words.pop(words.index("[PAD]")))
        (bare / "vocab.txt").write_text("\n".join(words) + "\n")
        inputs = ["input_ids", "attention_mask"]
        bert_tokenizer(words, model_input_names=inputs).save_pretrained(bare)
        config.save_pretrained(bare)
        return bare

    return make


# Tokenizer and plan.


def test_the_tokenizer_gives_the_token_ids_of_transformers(tiny_encoder: Path) -> None:
    pretrained = opened(tiny_encoder)
    texts = ["my card is lost", "", "안녕하세요!", *LONG]
    batch = pretrained.tokenizer(texts)
    expected = pretrained.saved_tokenizer(texts, truncation=True)["input_ids"]
    assert [batch.ids[start:end].tolist() for start, end in pairwise(batch.cu_seqlens)] == expected


@pytest.mark.parametrize(("asked", "expected"), [(5, 5), (64, 64), (None, 64)])
def test_max_length_is_the_users_or_the_models(
    asked: int | None, expected: int, tiny_encoder: Path, tmp_path: Path
) -> None:
    pretrained = opened(tiny_encoder, max_length=asked)
    assert pretrained.max_length == len(pretrained.tokenizer(LONG).ids) == expected
    pretrained.saved_tokenizer.save_pretrained(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).model_max_length == expected


def test_a_tokenizer_without_a_limit_gets_the_models(bare: Path) -> None:
    assert opened(bare, from_scratch=True).max_length == 64


def test_a_max_length_beyond_the_positions_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(CheckpointError, match="max_length 65 is more than the 64 positions"):
        opened(tiny_encoder, max_length=65)


def test_the_version_differs_where_texts_become_other_inputs(tiny_encoder: Path, copy: Path) -> None:
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text().replace('"card"', '"cart"'))
    versions = [opened(folder).version for folder in (tiny_encoder, tiny_encoder, copy)]
    assert versions[0] == versions[1] != versions[2]
    assert opened(tiny_encoder, max_length=9).version != versions[0]


def test_the_plan_has_the_hashes_of_a_folder(tiny_encoder: Path) -> None:
    pretrained = opened(tiny_encoder)
    assert pretrained.plan["model"] == str(tiny_encoder)
    assert pretrained.plan["model_content"].keys() == {"config.json", "model.safetensors"}


def test_a_hub_id_is_downloaded_and_the_plan_has_its_commit(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, **__: str(tiny_encoder))
    pretrained = Pretrained.open("someone/model", TrainingSettings())
    assert (pretrained.plan["model"], pretrained.plan["model_content"]) == ("someone/model", tiny_encoder.name)
    assert pretrained.network(transformers.AutoModel).config.hidden_size == 24


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert", "mpnet"])
def test_max_length_is_what_the_network_can_read(name: str, of_architecture: Callable[..., Path]) -> None:
    check_positions(of_architecture(name, **SIZES))


@pytest.mark.parametrize("name", ["roberta-prelayernorm", "data2vec-text", "xlm-roberta-xl"])
def test_max_length_is_what_relatives_of_roberta_can_read(name: str, of_architecture: Callable[..., Path]) -> None:
    check_positions(of_architecture(name, **SIZES))


def check_positions(folder: Path) -> None:
    pretrained = opened(folder, from_scratch=True)
    offset = 34 - pretrained.max_length
    network = pretrained.network(transformers.AutoModel).eval()
    ids = torch.as_tensor(pretrained.tokenizer(LONG).ids[None])
    assert ids.shape == (1, pretrained.max_length)
    assert network(input_ids=ids).last_hidden_state.isfinite().all()
    assert offset in (0, 2)
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=ids[:, [0, *range(ids.shape[1])]])


# New weights.


def test_new_weights_need_only_settings_and_a_vocabulary(bare: Path) -> None:
    network = opened(bare, from_scratch=True).network(HEAD, id2label={0: "a", 1: "b", 2: "c"})
    assert network.classifier.weight.shape == (3, 24)
    assert network.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_new_weights_are_not_those_of_the_checkpoint(tiny_encoder: Path) -> None:
    loaded = load_file(tiny_encoder / "model.safetensors")
    drawn = opened(tiny_encoder, from_scratch=True).network(transformers.AutoModel).state_dict()
    kept = opened(tiny_encoder).network(transformers.AutoModel).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in loaded.items())
    assert not any(torch.equal(drawn[name], value) for name, value in loaded.items())


def test_the_seed_decides_new_weights(bare: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        transformers.set_seed(seed)
        drawn.append(opened(bare, from_scratch=True).network(HEAD).classifier.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_new_weights_can_have_other_settings(bare: Path) -> None:
    pretrained = opened(bare, from_scratch=True, changes={"num_hidden_layers": 2, "max_position_embeddings": 32})
    network = pretrained.network(HEAD)
    assert pretrained.max_length == 32
    assert len(network.base_model.encoder.layer) == network.config.num_hidden_layers == 2


def test_the_settings_of_loaded_weights_cannot_be_changed(tiny_encoder: Path) -> None:
    with pytest.raises(CheckpointError, match="for new weights only: pass --from-scratch"):
        opened(tiny_encoder, changes={"num_hidden_layers": 2})


@pytest.mark.parametrize(
    ("name", "value"), [("num_layers", 2), ("num_hidden_layers", "two"), ("num_hidden_layers", 2.0), ("hidden_act", 1)]
)
def test_an_unknown_setting_or_one_of_another_type_is_refused(name: str, value: Any, bare: Path) -> None:
    with pytest.raises(CheckpointError, match=f"bare has no setting {name} that could be {value!r}"):
        opened(bare, from_scratch=True, changes={name: value})


def test_a_whole_number_can_be_given_for_a_float(bare: Path) -> None:
    assert opened(bare, from_scratch=True, changes={"hidden_dropout_prob": 0}).config.hidden_dropout_prob == 0


def test_settings_without_a_valid_network_are_refused_without_wrong_advice(bare: Path) -> None:
    with pytest.raises(CheckpointError, match="hidden size") as refusal:
        opened(bare, from_scratch=True, changes={"hidden_size": 25}).network(HEAD)
    assert "--from-scratch" not in str(refusal.value)


# Dropout.


DROPOUTS = {
    "bert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "roberta": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "electra": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "mpnet": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "deberta-v2": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "distilbert": ["dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"],
    "modernbert": ["embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"],
    "rembert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"],
    "albert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"],
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_set_under_every_name_of_an_architecture(name: str, of_architecture: Callable[..., Path]) -> None:
    folder = of_architecture(name)
    config = opened(folder, from_scratch=True, dropout=0.25).config
    assert {setting: getattr(config, setting) for setting in DROPOUTS[name]} == dict.fromkeys(DROPOUTS[name], 0.25)
    untouched = opened(folder, from_scratch=True).config
    assert all(getattr(untouched, setting) != 0.25 for setting in DROPOUTS[name])


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_dropout_reaches_every_layer(name: str, of_architecture: Callable[..., Path]) -> None:
    network = opened(of_architecture(name, **SIZES), from_scratch=True, dropout=0.25).network(HEAD)
    assert {layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}


def test_an_architecture_without_dropout_is_refused(
    of_architecture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_architecture("bert", **SIZES)
    plain = transformers.BertConfig.to_dict
    monkeypatch.setattr(
        transformers.BertConfig,
        "to_dict",
        lambda config: {key: value for key, value in plain(config).items() if "dropout" not in key},
    )
    with pytest.raises(CheckpointError, match="bare has no setting for dropout; leave --dropout out"):
        opened(folder, from_scratch=True, dropout=0.25)
    assert opened(folder, from_scratch=True).max_length == 34


# Damaged models.


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_pickled_weights_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def with_a_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()


def without_padding(folder: Path) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for file in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def without_one_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 72}))


def without_half_of_the_pooler(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_layer_that_the_settings_leave_out(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    added = {name.replace("layer.0", "layer.1"): value.clone() for name, value in weights.items() if "layer.0" in name}
    save_file({**weights, **added}, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_larger_tokenizer(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one", "two", "three", "now", "ok"])
    tokenizer.save_pretrained(folder)


DAMAGES = {
    without_weights: r"has no model.safetensors.*--from-scratch",
    with_pickled_weights_only: r"has no model.safetensors.*safe_serialization.*--from-scratch",
    without_config: "has no config.json, so it is not a checkpoint",
    with_a_broken_config: "config.json is not JSON",
    without_tokenizer: "has no usable tokenizer",
    without_padding: "no fast tokenizer with a padding token",
    without_one_weight: "lacks weights of its own architecture, encoder.layer.0.attention.self.query.weight among them",
    with_another_width: "lacks weights of its own architecture, encoder.layer.0.intermediate.dense.bias among them",
    without_half_of_the_pooler: "lacks weights of its own architecture, pooler.dense.bias among them",
    with_a_layer_that_the_settings_leave_out: r"config.json leaves out: encoder\.layer\.1\..*and 12 more",
    with_a_larger_tokenizer: "the tokenizer has .* tokens, the model embeds .*do not belong together",
}


@pytest.mark.parametrize(
    ("damage", "message"), [pytest.param(*damage, id=damage[0].__name__) for damage in DAMAGES.items()]
)
def test_a_damaged_model_is_refused_by_name(damage: Callable[[Path], None], message: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as refusal:
        opened(copy).network(HEAD)
    assert str(copy) in str(refusal.value)


def test_a_new_head_and_a_new_pooler_are_accepted(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    assert opened(copy).network(HEAD).classifier.weight.shape == (2, 24)


def test_a_head_of_another_task_is_replaced(copy: Path) -> None:
    weights = {**load_file(copy / "model.safetensors"), "crf.transitions": torch.ones(2), "cls.bias": torch.ones(2)}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert opened(copy).network(HEAD).classifier.weight.shape == (2, 24)


def test_a_head_for_other_labels_is_replaced(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(labels=["yes", "no"], **SIZES)
    network = opened(folder).network(HEAD, id2label=dict(enumerate("abc")))
    assert network.classifier.weight.shape == (3, 24)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "no-such-model", "someone/no-such-model"])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_model_that_does_not_exist_is_refused_by_name(name: str, from_scratch: bool) -> None:
    with pytest.raises(CheckpointError, match=name):
        opened(name, from_scratch=from_scratch)


def test_an_architecture_without_the_head_is_refused(of_architecture: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"bare cannot be .*Unrecognized configuration class"):
        opened(of_architecture("splinter", **SIZES), from_scratch=True).network(HEAD)


def test_an_architecture_without_positions_is_refused(of_architecture: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="no max_position_embeddings"):
        opened(of_architecture("t5"), from_scratch=True)


# Custom code of a checkpoint.


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, dict[str, Any]], Callable[[], bool]]:
    """Return `has_run = own_code(folder, settings)`: it adds code to a checkpoint. Questions are answered with yes."""

    def add(folder: Path, settings: Any) -> Callable[[], bool]:
        (folder / "own.py").write_text(
            f"open({str(tmp_path / 'it ran')!r}, 'w')\n"
            "import transformers\n"
            "class Own(transformers.BertForSequenceClassification): pass\n"
        )
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **settings}))
        return (tmp_path / "it ran").exists

    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return add


def test_custom_code_for_settings_or_tokenizer_is_never_run(
    copy: Path, own_code: Callable[[Path, dict[str, Any]], Callable[[], bool]]
) -> None:
    code = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own"}, "model_type": "own"}
    has_run = own_code(copy, code)
    (copy / "tokenizer_config.json").write_text(json.dumps({**code, "tokenizer_class": "Own"}))
    with pytest.raises(CheckpointError, match="copy"):
        opened(copy)
    assert not has_run()


@pytest.mark.parametrize("from_scratch", [False, True])
def test_custom_code_for_a_network_of_transformers_is_never_run(
    from_scratch: bool, copy: Path, own_code: Callable[[Path, dict[str, Any]], Callable[[], bool]]
) -> None:
    has_run = own_code(copy, {"auto_map": {"AutoModelForSequenceClassification": "own.Own"}})
    network = opened(copy, from_scratch=from_scratch).network(HEAD)
    assert type(network) is transformers.BertForSequenceClassification
    assert not has_run()
    assert "auto_map" not in network.config.to_dict(), "the trained checkpoint is of a class of transformers"


@pytest.mark.parametrize("from_scratch", [False, True])
def test_custom_code_for_an_unsupported_network_is_never_run(
    from_scratch: bool,
    of_architecture: Callable[..., Path],
    own_code: Callable[[Path, dict[str, Any]], Callable[[], bool]],
) -> None:
    folder = of_architecture("splinter", **SIZES)
    has_run = own_code(folder, {"auto_map": {"AutoModelForSequenceClassification": "own.Own"}})
    with pytest.raises(CheckpointError, match="bare"):
        opened(folder, from_scratch=from_scratch).network(HEAD)
    assert not has_run()
