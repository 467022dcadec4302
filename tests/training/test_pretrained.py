import dataclasses
import json
import shutil
from itertools import pairwise

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encort.runtime.common.errors import CheckpointError
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings

SIZES = {
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 34,
}
HEAD = transformers.AutoModelForSequenceClassification
LONG = ["my card is lost " * 100]


def opened(folder, *, from_scratch=False, changes=None, **settings):
    settings = TrainingSettings(**settings)
    return Pretrained.open(str(folder), settings, from_scratch=from_scratch, config_changes=changes)


@pytest.fixture
def copy(tiny_encoder, tmp_path):
    return shutil.copytree(tiny_encoder, tmp_path / "copy")


@pytest.fixture
def bare(tiny_encoder, tmp_path):
    """Settings and vocabulary alone."""
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_encoder / name, tmp_path / "bare")
    return tmp_path / "bare"


@pytest.fixture
def of_architecture(bare):
    """`of_architecture(name, **settings)`: a folder with settings of that architecture and a tokenizer."""

    def make(name, **settings):
        config = transformers.AutoConfig.for_model(name, **settings)
        config.vocab_size = json.loads((bare / "config.json").read_text())["vocab_size"]
        # [PAD] where the architecture has it, if there is such a place.
        config.pad_token_id = min(config.pad_token_id or 0, 1)
        words = (bare / "vocab.txt").read_text().splitlines()
        words.insert(config.pad_token_id, words.pop(words.index("[PAD]")))
        (bare / "vocab.txt").write_text("\n".join(words) + "\n")
        inputs = ["input_ids", "attention_mask"]
        tokenizer = transformers.BertTokenizerFast(vocab_file=str(bare / "vocab.txt"), model_input_names=inputs)
        tokenizer.save_pretrained(bare)
        config.save_pretrained(bare)
        return bare

    return make


# What is loaded.


def test_texts_are_read_as_transformers_reads_them(tiny_encoder):
    pretrained = opened(tiny_encoder)
    texts = ["my card is lost", "", "안녕하세요!", *LONG]
    batch = pretrained.tokenizer(texts)
    expected = pretrained.saved_tokenizer(texts, truncation=True)["input_ids"]
    assert [batch.ids[start:end].tolist() for start, end in pairwise(batch.cu_seqlens)] == expected


@pytest.mark.parametrize(("asked", "found"), [(5, 5), (64, 64), (None, 64)])
def test_the_most_tokens_are_those_asked_for_or_the_models(asked, found, tiny_encoder, tmp_path):
    pretrained = opened(tiny_encoder, max_length=asked)
    assert pretrained.max_length == len(pretrained.tokenizer(LONG).ids) == found
    pretrained.saved_tokenizer.save_pretrained(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).model_max_length == found


def test_a_tokenizer_without_a_limit_has_the_models(bare):
    assert opened(bare, from_scratch=True).max_length == 64


def test_a_max_length_beyond_the_positions_is_refused(tiny_encoder):
    with pytest.raises(CheckpointError, match="max_length 65 is more than the 64 positions"):
        opened(tiny_encoder, max_length=65)


def test_the_version_is_another_where_texts_become_other_inputs(tiny_encoder, copy):
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text().replace('"card"', '"cart"'))
    versions = [opened(folder).version for folder in (tiny_encoder, tiny_encoder, copy)]
    assert versions[0] == versions[1] != versions[2]
    assert opened(tiny_encoder, max_length=9).version != versions[0]


def test_a_folder_is_known_by_its_files_and_a_hub_id_by_its_commit(tiny_encoder):
    pretrained = opened(tiny_encoder)
    assert pretrained.plan["model"] == str(tiny_encoder)
    assert pretrained.plan["model_content"].keys() == {"config.json", "model.safetensors"}
    pretrained.config._commit_hash = "abc"
    assert dataclasses.replace(pretrained, name="someone/model").plan["model_content"] == "abc"


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert", "mpnet"])
def test_the_most_tokens_are_as_many_as_the_network_reads(name, of_architecture):
    check_positions(of_architecture(name, **SIZES))


@pytest.mark.parametrize("name", ["roberta-prelayernorm", "data2vec-text", "xlm-roberta-xl"])
def test_the_most_tokens_are_as_many_as_relatives_of_roberta_read(name, of_architecture):
    check_positions(of_architecture(name, **SIZES))


def check_positions(folder):
    pretrained = opened(folder, from_scratch=True)
    offset = 34 - pretrained.max_length
    network = pretrained.network(transformers.AutoModel).eval()
    ids = torch.as_tensor(pretrained.tokenizer(LONG).ids[None])
    assert ids.shape == (1, pretrained.max_length)
    assert network(input_ids=ids).last_hidden_state.isfinite().all()
    assert offset in (0, 2)
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=ids[:, [0, *range(ids.shape[1])]])


# From scratch.


def test_settings_and_a_vocabulary_are_enough_to_begin_from_scratch(bare):
    network = opened(bare, from_scratch=True).network(HEAD, id2label={0: "a", 1: "b", 2: "c"})
    assert network.classifier.weight.shape == (3, 24)
    assert network.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_from_scratch_no_weight_is_the_checkpoints(tiny_encoder):
    given = load_file(tiny_encoder / "model.safetensors")
    drawn = opened(tiny_encoder, from_scratch=True).network(transformers.AutoModel).state_dict()
    kept = opened(tiny_encoder).network(transformers.AutoModel).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in given.items())
    assert not any(torch.equal(drawn[name], value) for name, value in given.items())


def test_the_seed_draws_the_weights(bare):
    drawn = []
    for seed in (1, 1, 2):
        transformers.set_seed(seed)
        drawn.append(opened(bare, from_scratch=True).network(HEAD).classifier.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_new_weights_may_have_other_settings(bare):
    pretrained = opened(bare, from_scratch=True, changes={"num_hidden_layers": 2, "max_position_embeddings": 32})
    network = pretrained.network(HEAD)
    assert pretrained.max_length == 32
    assert len(network.base_model.encoder.layer) == network.config.num_hidden_layers == 2


def test_the_settings_of_given_weights_cannot_be_changed(tiny_encoder):
    with pytest.raises(CheckpointError, match="for new weights only: pass --from-scratch"):
        opened(tiny_encoder, changes={"num_hidden_layers": 2})


@pytest.mark.parametrize(
    ("name", "value"), [("num_layers", 2), ("num_hidden_layers", "two"), ("num_hidden_layers", 2.0), ("hidden_act", 1)]
)
def test_a_setting_that_is_not_there_or_of_another_type_is_refused(name, value, bare):
    with pytest.raises(CheckpointError, match=f"bare has no setting {name} that could be {value!r}"):
        opened(bare, from_scratch=True, changes={name: value})


def test_a_whole_number_may_be_the_value_of_a_fraction(bare):
    assert opened(bare, from_scratch=True, changes={"hidden_dropout_prob": 0}).config.hidden_dropout_prob == 0


def test_settings_that_make_no_network_are_refused_with_advice_that_helps(bare):
    with pytest.raises(CheckpointError, match="hidden size") as refusal:
        opened(bare, from_scratch=True, changes={"hidden_size": 25}).network(HEAD)
    assert "--from-scratch" not in str(refusal.value)


# Dropout, under every architecture's names.


DROPOUTS = {
    "bert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "roberta": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "electra": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"],
    "mpnet": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "deberta-v2": ["hidden_dropout_prob", "attention_probs_dropout_prob"],
    "distilbert": ["dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"],
    "modernbert": ["embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"],
    "albert": ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"],
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_has_every_architectures_names(name, of_architecture):
    folder = of_architecture(name)
    config = opened(folder, from_scratch=True, dropout=0.25).config
    assert {each: getattr(config, each) for each in DROPOUTS[name]} == dict.fromkeys(DROPOUTS[name], 0.25)
    untouched = opened(folder, from_scratch=True).config
    assert all(getattr(untouched, each) != 0.25 for each in DROPOUTS[name])


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_dropout_reaches_every_layer(name, of_architecture):
    network = opened(of_architecture(name, **SIZES), from_scratch=True, dropout=0.25).network(HEAD)
    assert {layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}


# What is refused.


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_pickled_weights_only(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def without_config(folder):
    (folder / "config.json").unlink()


def with_a_broken_config(folder):
    (folder / "config.json").write_text("{")


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()


def without_padding(folder):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for file in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / file).unlink()
    tokenizer.save_pretrained(folder)


def without_one_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 72}))


def with_a_larger_tokenizer(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one", "two", "three", "now", "ok"])
    tokenizer.save_pretrained(folder)


DAMAGES = {
    without_weights: r"has no model.safetensors.*--from-scratch",
    with_pickled_weights_only: r"has no model.safetensors.*safe_serialization.*--from-scratch",
    without_config: "cannot be loaded as a pretrained encoder: .*config.json",
    with_a_broken_config: "cannot be loaded as a pretrained encoder: .*JSON",
    without_tokenizer: "has no usable tokenizer",
    without_padding: "no fast tokenizer with a padding token",
    without_one_weight: "lacks weights of its own architecture, encoder.layer.0.attention.self.query.weight among them",
    with_another_width: "lacks weights of its own architecture, encoder.layer.0.intermediate.dense.bias among them",
    with_a_larger_tokenizer: "the tokenizer has .* tokens, the model embeds .*do not belong together",
}


@pytest.mark.parametrize(("damage", "message"), [pytest.param(*each, id=each[0].__name__) for each in DAMAGES.items()])
def test_a_damaged_model_is_refused_by_name(damage, message, copy):
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as refusal:
        opened(copy).network(HEAD)
    assert str(copy) in str(refusal.value)


def test_a_new_head_and_a_new_pooler_are_no_damage(copy):
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    assert opened(copy).network(HEAD).classifier.weight.shape == (2, 24)


def test_a_head_for_other_labels_is_replaced(make_checkpoint):
    folder = make_checkpoint(labels=["yes", "no"], **SIZES)
    network = opened(folder).network(HEAD, id2label=dict(enumerate("abc")))
    assert network.classifier.weight.shape == (3, 24)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "no-such-model", "someone/no-such-model"])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_model_that_does_not_exist_is_refused_by_name(name, from_scratch):
    with pytest.raises(CheckpointError, match=name):
        opened(name, from_scratch=from_scratch)


def test_an_architecture_without_such_a_head_is_refused(of_architecture):
    with pytest.raises(CheckpointError, match=r"bare cannot be .*Unrecognized configuration class"):
        opened(of_architecture("splinter", **SIZES), from_scratch=True).network(HEAD)


def test_an_architecture_without_positions_is_refused(of_architecture):
    with pytest.raises(CheckpointError, match="no max_position_embeddings"):
        opened(of_architecture("t5"), from_scratch=True)


# Code of a checkpoint is never run.


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """`ran = own_code(folder, settings)`: a checkpoint with code, that the user would let run."""

    def add(folder, settings):
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


def test_code_for_settings_or_tokenizer_is_never_run(copy, own_code):
    code = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own"}, "model_type": "own"}
    ran = own_code(copy, code)
    (copy / "tokenizer_config.json").write_text(json.dumps({**code, "tokenizer_class": "Own"}))
    with pytest.raises(CheckpointError, match="copy"):
        opened(copy)
    assert not ran()


@pytest.mark.parametrize("from_scratch", [False, True])
def test_code_for_a_network_of_transformers_own_is_never_run(from_scratch, copy, own_code):
    ran = own_code(copy, {"auto_map": {"AutoModelForSequenceClassification": "own.Own"}})
    network = opened(copy, from_scratch=from_scratch).network(HEAD)
    assert type(network) is transformers.BertForSequenceClassification
    assert not ran()


@pytest.mark.parametrize("from_scratch", [False, True])
def test_code_for_another_network_is_never_run(from_scratch, of_architecture, own_code):
    folder = of_architecture("splinter", **SIZES)
    ran = own_code(folder, {"auto_map": {"AutoModelForSequenceClassification": "own.Own"}})
    with pytest.raises(CheckpointError, match="bare"):
        opened(folder, from_scratch=from_scratch).network(HEAD)
    assert not ran()
