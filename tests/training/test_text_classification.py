import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encort.runtime.errors import CheckpointError, DatasetError, EncortError, OutputExistsError
from encort.training.settings import TrainingSettings
from encort.training.text_classification import train_text_classification

LABELS = ["card_lost", "change_pin", "greeting"]


# What a run leaves.


def test_a_separable_set_is_learned(trained):
    assert trained.report.metrics["accuracy"] == trained.report.metrics["macro_f1"] == 1
    assert trained.report.metrics["loss"] < 1
    assert (trained.report.train_rows, trained.report.validation_rows) == (120, 12)


def test_the_checkpoint_gives_the_accuracy_of_the_report(trained, tables):
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained.folder).eval()
    rows = [line.rsplit(",", 1) for line in tables[1].read_text().splitlines()[1:]]
    with torch.inference_mode():
        logits = model(**tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[index] for index in logits.argmax(1).tolist()] == [label for _, label in rows]


def test_the_folder_holds_a_checkpoint_and_nothing_else(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json"} <= names
    assert names <= {
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
        "vocab.txt",
    }
    assert [path.name for path in trained.folder.parent.iterdir()] == [trained.folder.name]


def test_label_names_are_in_the_config(trained):
    assert trained.config["id2label"] == {"0": "card_lost", "1": "change_pin", "2": "greeting"}
    assert trained.config["label2id"] == {"card_lost": 0, "change_pin": 1, "greeting": 2}
    assert trained.config["architectures"] == ["BertForSequenceClassification"]


def test_the_report_lies_beside_the_weights(trained):
    report = json.loads((trained.folder / "training.json").read_text())
    assert report["metrics"] == trained.report.metrics
    assert report["labels"] == trained.report.labels == LABELS
    assert report["checkpoint"] == trained.report.checkpoint == str(trained.folder)
    assert TrainingSettings(**report["settings"]) == trained.report.settings


# What the settings do.


def test_weight_decay_skips_biases_and_layer_norms(trained):
    names = {id(parameter): name for name, parameter in trained.trainer.model.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in trained.trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(names.values())
    for name, value in decay.items():
        assert value == (0 if name.endswith("bias") or "LayerNorm" in name else 0.02)


def test_dropout_reaches_the_config(trained):
    assert trained.config["hidden_dropout_prob"] == trained.config["attention_probs_dropout_prob"] == 0.05


def test_without_a_setting_the_dropout_is_the_models(tiny_encoder, train_tiny):
    config = train_tiny(epochs=1).config
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        assert config[name] == json.loads((tiny_encoder / "config.json").read_text())[name]


def test_the_learning_rate_rises_and_falls(trained):
    scheduler, steps = trained.trainer.lr_scheduler, trained.trainer.state.max_steps
    assert steps == 3 * 30
    shape = [scheduler.lr_lambdas[0](step) for step in range(steps + 1)]
    assert shape[0] == shape[-1] == 0
    assert shape.index(1) == 0.2 * steps


def test_the_learning_rate_is_chosen_by_the_width(train_tiny):
    run = train_tiny(epochs=1, learning_rate=None)
    assert run.trainer.args.learning_rate == pytest.approx(5e-5 * (768 / 24) ** 2)


def test_the_best_epoch_is_kept(train_tiny, monkeypatch):
    accuracies, weights = iter([0.2, 0.9, 0.5]), []

    def evaluate(trainer, *args, **options):
        metrics = original(trainer, *args, **options)
        weights.append(trainer.model.classifier.weight.detach().clone())
        return {**metrics, "eval_accuracy": next(accuracies, metrics["eval_accuracy"])}

    original = transformers.Trainer.evaluate
    monkeypatch.setattr(transformers.Trainer, "evaluate", evaluate)
    kept = load_file(train_tiny(batch_size=20).folder / "model.safetensors")["classifier.weight"]
    assert [torch.equal(kept, seen) for seen in weights] == [False, True, False, True]


def test_the_same_seed_gives_the_same_weights(train_tiny, trained):
    again = train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=3)
    assert again.weights == trained.weights


def test_the_seed_is_that_of_order_and_dropout_too(trained):
    assert trained.trainer.args.seed == 3


def test_another_seed_gives_other_weights(train_tiny, trained):
    other = train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=4)
    assert other.weights != trained.weights


@pytest.mark.parametrize(("max_length", "tokens"), [(5, 5), (None, 64)])
def test_long_texts_are_cut(max_length, tokens, train_tiny, write):
    rows = "".join(f"{'the card ' * 100},{label}\n" for label in LABELS)
    run = train_tiny(train=write("long.csv", f"text,label\n{rows}"), epochs=1, max_length=max_length)
    assert {len(row["input_ids"]) for row in run.trainer.train_dataset} == {tokens}


def test_a_head_for_other_labels_is_replaced(make_checkpoint, train_tiny):
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
    run = train_tiny(model=make_checkpoint(labels=["yes", "no"], **sizes), epochs=1)
    assert list(run.config["label2id"]) == LABELS


def test_a_validation_set_is_held_back(tables, tiny_encoder, tmp_path):
    report = train_text_classification(
        model=tiny_encoder,
        train=tables[0],
        output=tmp_path / "checkpoint",
        settings=TrainingSettings(epochs=1, batch_size=20),
    )
    assert (report.train_rows, report.validation_rows) == (108, 12)


# What is refused.


@pytest.fixture
def refused(tables, tiny_encoder, tmp_path):
    """`refused(error, message, model=, train=, ...)`: the run fails and leaves nothing behind."""

    def check(error, message, *, model=tiny_encoder, train=tables[0], **settings):
        parent = tmp_path / "refused"
        parent.mkdir()
        with pytest.raises(error, match=message):
            train_text_classification(
                model=model,
                train=train,
                validation=tables[1],
                output=parent / "checkpoint",
                settings=TrainingSettings(**{"epochs": 1, "batch_size": 20, **settings}),
            )
        assert list(parent.iterdir()) == []

    return check


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_pickled_weights_only(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def without_config(folder):
    (folder / "config.json").unlink()


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()


def without_one_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 72}))


def with_a_larger_tokenizer(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # The last two are words of the tables, beyond the embedding table.
    tokenizer.add_tokens(["one", "two", "three", "now", "ok"])
    tokenizer.save_pretrained(folder)


DAMAGES = [
    without_weights,
    with_pickled_weights_only,
    without_config,
    without_tokenizer,
    without_one_weight,
    with_another_width,
    with_a_larger_tokenizer,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused(damage, tiny_encoder, tmp_path, refused):
    folder = shutil.copytree(tiny_encoder, tmp_path / "damaged")
    damage(folder)
    refused(CheckpointError, "damaged", model=folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "no-such-model"])
def test_a_model_that_does_not_exist_is_refused(name, refused):
    refused(CheckpointError, name, model=name)


def test_code_of_a_checkpoint_is_never_run(tiny_encoder, tmp_path, refused, monkeypatch):
    folder = shutil.copytree(tiny_encoder, tmp_path / "with_code")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Own: pass\n")
    code = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(code))
    (folder / "tokenizer_config.json").write_text(json.dumps({**code, "tokenizer_class": "Own"}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    refused(CheckpointError, "with_code", model=folder)
    assert not (tmp_path / "it ran").exists()


def test_data_that_cannot_be_trained_on_is_refused(write, refused):
    refused(DatasetError, "row 2: no text", train=write("table.csv", "text,label\nhello,a\n,b\n"))


def test_a_training_that_diverges_is_refused(refused):
    refused(DatasetError, "diverged.*lower the learning rate", learning_rate=1e30)


def test_a_max_length_beyond_the_positions_is_refused(write, refused):
    rows = "".join(f"{'the card ' * 100},{label}\n" for label in LABELS)
    refused(EncortError, "64", train=write("long.csv", f"text,label\n{rows}"), max_length=512)


# What replaces what.


@pytest.fixture
def train_into(tables, tiny_encoder):
    def train(output, *, overwrite, epochs=1):
        return train_text_classification(
            model=tiny_encoder,
            train=tables[0],
            validation=tables[1],
            output=output,
            settings=TrainingSettings(epochs=epochs, batch_size=20),
            overwrite=overwrite,
        )

    return train


def test_an_earlier_checkpoint_is_replaced_only_when_asked(trained, tmp_path, train_into):
    folder = shutil.copytree(trained.folder, tmp_path / "checkpoint")
    with pytest.raises(OutputExistsError, match="pass overwrite"):
        train_into(folder, overwrite=False)
    assert (folder / "model.safetensors").read_bytes() == trained.weights
    train_into(folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != trained.weights
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_existing_output_is_refused_before_the_data_is_read(trained, tiny_encoder):
    with pytest.raises(OutputExistsError):
        train_text_classification(model=tiny_encoder, train="no such file.csv", output=trained.folder)


@pytest.mark.parametrize("name", ["thesis.txt", "config.json"])
def test_a_folder_that_no_training_made_is_never_replaced(name, tmp_path, train_into):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(OutputExistsError):
        train_into(folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == [name]


def test_an_earlier_checkpoint_survives_a_failed_run(trained, tmp_path, train_into, monkeypatch):
    folder = shutil.copytree(trained.folder, tmp_path / "checkpoint")
    monkeypatch.setattr(transformers.Trainer, "evaluate", lambda *_, **__: {}["no metrics"])
    with pytest.raises(KeyError):
        train_into(folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == trained.weights
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
