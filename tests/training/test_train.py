import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import transformers
from safetensors.torch import load_file

from encort.runtime.common.errors import CheckpointError, DatasetError, EncortError, OutputExistsError
from encort.training.settings import TrainingSettings
from encort.training.tasks.text_classification import MultiLabelClassification, TextClassification
from encort.training.train import train

LABELS = ["card_lost", "change_pin", "greeting"]
LONG = "text,label\n" + "".join(f"{'the card ' * 100},{label}\n" for label in LABELS)


# The checkpoint folder.


def test_a_separable_set_is_learned(trained: Any) -> None:
    assert trained.report.metrics == {"validation": {"accuracy": 1, "macro_f1": 1}}
    assert trained.report.rows == {"train": 120, "validation": 12}
    losses = [entry["eval_loss"] for entry in trained.report.history if "eval_loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < min(1, losses[0])


def test_the_checkpoint_has_the_accuracy_of_the_report(trained: Any, tables: tuple[Path, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained.folder).eval()
    rows = [line.rsplit(",", 1) for line in tables[1].read_text().splitlines()[1:]]
    with torch.inference_mode():
        logits = model(**tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[index] for index in logits.argmax(1).tolist()] == [label for _, label in rows]


def test_the_folder_holds_a_checkpoint_and_nothing_else(trained: Any) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "training.json", "training.md", "loss.svg"}
    assert expected | {"confusion.svg"} <= names
    assert names - expected <= {"confusion.svg", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"}
    assert [path.name for path in trained.folder.parent.iterdir()] == [trained.folder.name]


def test_all_files_have_the_permissions_that_the_process_gives(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = (tmp_path / "file").stat().st_mode
    assert {
        path.name: path.stat().st_mode for path in trained.folder.iterdir() if path.stat().st_mode != expected
    } == {}


def test_label_names_are_in_the_config(trained: Any) -> None:
    assert trained.config["id2label"] == {"0": "card_lost", "1": "change_pin", "2": "greeting"}
    assert trained.config["label2id"] == {"card_lost": 0, "change_pin": 1, "greeting": 2}
    assert trained.config["architectures"] == ["BertForSequenceClassification"]


def test_the_report_is_in_the_checkpoint_folder(trained: Any, tiny_encoder: Path) -> None:
    report = json.loads((trained.folder / "training.json").read_text())
    assert report == json.loads(json.dumps(dataclasses.asdict(trained.report)))
    assert report["labels"] == LABELS
    assert report["label_counts"] == dict.fromkeys(LABELS, 40)
    assert (report["task"], report["model"]) == ("text-classification", str(tiny_encoder))
    assert report["checkpoint"] == trained.report.checkpoint == str(trained.folder)
    assert report["versions"].keys() == {"encort", "torch", "transformers", "datasets"}
    assert TrainingSettings(**report["settings"]) == trained.report.settings


def test_the_page_and_its_pictures_are_in_the_checkpoint_folder(trained: Any) -> None:
    page = (trained.folder / "training.md").read_text()
    assert "| validation | 12 | 100.00 % | 100.00 % |" in page
    assert "| patience | default |" in page
    for name in ("loss.svg", "confusion.svg"):
        assert f"]({name})" in page
        assert ElementTree.parse(trained.folder / name).getroot().tag.endswith("svg")


def test_a_test_split_is_reported_and_does_not_choose_the_weights(
    train_tiny: Callable[..., Any], write: Callable[..., Path]
) -> None:
    test = write("test.csv", "text,label\nhello,card_lost\nmy card is lost,greeting\nchange the pin,change_pin\n")
    run = train_tiny(test=test, epochs=2)
    assert run.report.metrics["validation"]["accuracy"] == 1
    assert run.report.metrics["test"]["accuracy"] == pytest.approx(1 / 3)
    assert run.report.rows == {"train": 120, "validation": 12, "test": 3}
    assert "## Labels (test)" in (run.folder / "training.md").read_text()
    assert len(run.trainer.eval_dataset) == 12


def test_a_folder_with_splits_can_be_trained_on(
    train_tiny: Callable[..., Any], tables: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tables[0].parent, tmp_path / "data")
    shutil.copy(tables[1], tmp_path / "data" / "test.csv")
    report = train_tiny(train=tmp_path / "data", epochs=1, batch_size=20).report
    assert report.rows == {"train": 120, "validation": 12, "test": 12}
    assert report.labels == LABELS


def test_columns_can_be_named_and_a_header_given(
    train_tiny: Callable[..., Any], tables: tuple[Path, Path], write: Callable[..., Path]
) -> None:
    bare = write("bare.csv", tables[0].read_text().removeprefix("text,label\n"))
    names = {"header": ["said", "meant"], "columns": {"text": "said", "label": "meant"}}
    assert train_tiny(train=bare, epochs=1, batch_size=20, **names).report.labels == LABELS


def test_a_training_can_start_from_scratch(tiny_encoder: Path, train_tiny: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_encoder / name, tmp_path)
    run = train_tiny(model=tmp_path, from_scratch=True)
    assert run.report.metrics["validation"]["accuracy"] > 0.9
    assert (run.folder / "tokenizer.json").is_file()


# Settings.


def test_weight_decay_skips_biases_and_layer_norms(trained: Any) -> None:
    names = {id(parameter): name for name, parameter in trained.trainer.model.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in trained.trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(names.values())
    for name, value in decay.items():
        assert value == (0 if name.endswith("bias") or "LayerNorm" in name else 0.02)


def test_dropout_reaches_the_config(trained: Any) -> None:
    assert trained.config["hidden_dropout_prob"] == trained.config["attention_probs_dropout_prob"] == 0.05


def test_the_learning_rate_rises_and_falls(trained: Any) -> None:
    scheduler, steps = trained.trainer.lr_scheduler, trained.trainer.state.max_steps
    assert steps == 3 * 30
    shape = [scheduler.lr_lambdas[0](step) for step in range(steps + 1)]
    assert shape[0] == shape[-1] == 0
    assert shape.index(1) == 0.2 * steps


def test_by_default_dropout_and_learning_rate_suit_the_model(
    tiny_encoder: Path, train_tiny: Callable[..., Any]
) -> None:
    run = train_tiny(epochs=1, batch_size=20, learning_rate=None)
    assert run.trainer.args.learning_rate == 1e-3  # the upper limit of the default
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        assert run.config[name] == json.loads((tiny_encoder / "config.json").read_text())[name]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], list[torch.Tensor]]:
    """Return `measured(accuracies)`, which fakes the accuracy of each evaluation; its list collects their weights."""

    def pretend(accuracies: list[float]) -> list[torch.Tensor]:
        fake_accuracies = iter(accuracies)
        weights: list[torch.Tensor] = []
        evaluate, scores = transformers.Trainer.evaluate, TextClassification.scores

        def evaluated(trainer: Any, *args: Any, **options: Any) -> Any:
            weights.append(trainer.model.classifier.weight.detach().clone())
            return evaluate(trainer, *args, **options)

        def scored(task: Any, *args: Any) -> Any:
            real = scores(task, *args)
            # The last call is the report's, at the end.
            return dataclasses.replace(real, metrics={**real.metrics, "accuracy": next(fake_accuracies, 0.0)})

        monkeypatch.setattr(transformers.Trainer, "evaluate", evaluated)
        monkeypatch.setattr(TextClassification, "scores", scored)
        return weights

    return pretend


def kept(run: Any) -> torch.Tensor:
    return load_file(run.folder / "model.safetensors")["classifier.weight"]


def test_the_weights_of_the_best_epoch_are_kept(
    train_tiny: Callable[..., Any], measured: Callable[[list[float]], list[torch.Tensor]]
) -> None:
    weights = measured([0.2, 0.9, 0.5])
    run = train_tiny(batch_size=20)
    assert [torch.equal(kept(run), seen) for seen in weights] == [False, True, False]


def test_with_save_steps_the_weights_of_the_best_evaluation_are_kept(
    train_tiny: Callable[..., Any], measured: Callable[[list[float]], list[torch.Tensor]]
) -> None:
    weights = measured([0.2, 0.9, 0.5])
    run = train_tiny(batch_size=20, epochs=1, save_steps=2)
    assert [entry["step"] for entry in run.report.history if "eval_loss" in entry] == [2, 4, 6]
    assert [torch.equal(kept(run), seen) for seen in weights] == [False, True, False]


def test_patience_ends_a_training_that_does_not_improve(
    train_tiny: Callable[..., Any], measured: Callable[[list[float]], list[torch.Tensor]]
) -> None:
    weights = measured([0.5, 0.9, 0.9, 0.8, 1.0])
    run = train_tiny(batch_size=40, epochs=5, patience=2)
    assert [torch.equal(kept(run), seen) for seen in weights] == [False, True, False, False]


def test_gradient_accumulation_makes_fewer_steps(train_tiny: Callable[..., Any]) -> None:
    run = train_tiny(batch_size=20, epochs=1, gradient_accumulation=3)
    assert run.trainer.state.global_step == 2


def test_a_training_shorter_than_save_steps_is_evaluated(train_tiny: Callable[..., Any]) -> None:
    run = train_tiny(batch_size=40, epochs=1, save_steps=1000)
    assert run.trainer.state.global_step == 3
    assert run.report.metrics["validation"].keys() == {"accuracy", "macro_f1"}


def test_the_same_seed_gives_the_same_weights(train_tiny: Callable[..., Any], trained: Any) -> None:
    again = train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=3)
    assert again.weights == trained.weights


def test_the_seed_reaches_the_trainer(trained: Any) -> None:
    assert trained.trainer.args.seed == 3


def test_another_seed_gives_other_weights(train_tiny: Callable[..., Any], trained: Any) -> None:
    other = train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=4)
    assert other.weights != trained.weights


@pytest.mark.parametrize(("max_length", "tokens"), [(5, 5), (None, 64)])
def test_long_texts_are_cut_in_training_and_by_the_saved_tokenizer(
    max_length: int | None,
    tokens: int,
    tables: tuple[Path, Path],
    train_tiny: Callable[..., Any],
    write: Callable[..., Path],
) -> None:
    run = train_tiny(train=write("long.csv", LONG), validation=tables[1], epochs=1, max_length=max_length)
    assert {len(row["input_ids"]) for row in run.trainer.train_dataset} == {tokens}
    assert transformers.AutoTokenizer.from_pretrained(run.folder).model_max_length == tokens


def test_a_head_for_other_labels_is_replaced(
    make_checkpoint: Callable[..., Path], train_tiny: Callable[..., Any]
) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
    run = train_tiny(model=make_checkpoint(labels=["yes", "no"], **sizes), epochs=1)
    assert list(run.config["label2id"]) == LABELS


def test_a_validation_set_is_held_back(train_tiny: Callable[..., Any], tables: tuple[Path, Path]) -> None:
    assert train_tiny(train=tables[0], epochs=1, batch_size=20).report.rows == {"train": 108, "validation": 12}


@pytest.mark.parametrize(("greetings", "warns"), [(2, True), (3, False)])
def test_imbalanced_labels_are_logged(
    greetings: int,
    warns: bool,
    train_tiny: Callable[..., Any],
    tables: tuple[Path, Path],
    write: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = ["my card is lost,card_lost"] * 41 + ["change the pin,change_pin"] * 20 + ["hello,greeting"] * greetings
    file = write("uneven.csv", "\n".join(["text,label", *rows]))
    with caplog.at_level(logging.WARNING, "encort"):
        train_tiny(train=file, validation=tables[1], epochs=1, batch_size=64)
    warnings = [message for message in caplog.messages if message.startswith("labels are imbalanced")]
    assert len(warnings) == warns
    assert all("card_lost has 41 examples, greeting has 2;" in message for message in warnings)


# The cache of tokenized data.


def test_tokenized_data_is_memory_mapped_and_cached(
    train_tiny: Callable[..., Any], trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = trained.trainer.train_dataset
    monkeypatch.setattr(TextClassification, "encode", lambda *_: pytest.fail("tokenized again"))
    again = train_tiny(epochs=1, batch_size=40).trainer.train_dataset
    assert again.cache_files == before.cache_files != []


def test_another_tokenizer_does_not_use_the_cache(
    trained: Any, make_checkpoint: Callable[..., Path], train_tiny: Callable[..., Any]
) -> None:
    model = make_checkpoint(hidden_size=24, num_attention_heads=2, num_hidden_layers=1)
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text().replace('"card"', '"cart"'))
    assert inputs(train_tiny(model=model, epochs=1, batch_size=40)) != inputs(trained)


def test_another_max_length_does_not_use_the_cache(trained: Any, train_tiny: Callable[..., Any]) -> None:
    assert inputs(train_tiny(max_length=5, epochs=1, batch_size=40)) != inputs(trained)


def test_other_labels_do_not_use_the_cache(
    trained: Any, tables: tuple[Path, Path], train_tiny: Callable[..., Any], write: Callable[..., Path]
) -> None:
    train_on = write("train.csv", tables[0].read_text() + "the first of all,a_label\n")
    run = train_tiny(train=train_on, validation=tables[1], epochs=1, batch_size=40)
    before, after = (result.trainer.eval_dataset["labels"][:] for result in (trained, run))
    assert after == [number + 1 for number in before]


def inputs(run: Any) -> list[list[int]]:
    return run.trainer.train_dataset["input_ids"][:]


# Errors.


@pytest.fixture
def refused(tables: tuple[Path, Path], tiny_encoder: Path, tmp_path: Path) -> Callable[..., str]:
    """Return `refused(error, message, model=, train_on=, ...)`, which checks that a run fails and leaves no files."""

    def check(
        error: type[EncortError],
        message: str,
        *,
        model: Path | str = tiny_encoder,
        train_on: Path = tables[0],
        validation: Path | None = tables[1],
        **settings: Any,
    ) -> str:
        parent = tmp_path / "refused"
        parent.mkdir()
        with pytest.raises(error, match=message) as refusal:
            train(
                TextClassification(),
                model=model,
                train=train_on,
                validation=validation,
                output=parent / "checkpoint",
                settings=TrainingSettings(**{"epochs": 1, "batch_size": 20, **settings}),
            )
        assert list(parent.iterdir()) == []
        return str(refusal.value)

    return check


@pytest.fixture
def damaged(tiny_encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return `damaged(*names)`, a model without these files."""

    def make(*names: str) -> Path:
        folder = shutil.copytree(tiny_encoder, tmp_path / "damaged")
        for name in names:
            (folder / name).unlink()
        return folder

    return make


WRONG = "text,label\nhello,greeting\n,greeting\n"


def test_a_model_that_does_not_exist_is_refused(refused: Callable[..., str]) -> None:
    refused(CheckpointError, "there is no checkpoint folder /no/such/folder", model="/no/such/folder")


def test_a_model_without_weights_is_refused(damaged: Callable[..., Path], refused: Callable[..., str]) -> None:
    refused(CheckpointError, "damaged has no model.safetensors", model=damaged("model.safetensors"))


def test_data_that_cannot_be_trained_on_is_refused(write: Callable[..., Path], refused: Callable[..., str]) -> None:
    refused(DatasetError, "no text: row 2", train_on=write("table.csv", WRONG))


def test_problems_of_data_and_model_are_listed_in_one_error(
    write: Callable[..., Path], damaged: Callable[..., Path], refused: Callable[..., str]
) -> None:
    message = refused(
        DatasetError,
        "^this cannot be trained on:\n",
        train_on=write("table.csv", WRONG),
        validation=write("validation.csv", "text\nhello\n"),
        model=damaged("config.json"),
    )
    problems = message.splitlines()[1:]
    assert len(problems) == 4
    for problem in (
        "table.csv has 1 label",
        "table.csv: no text: row 2",
        "validation.csv has no column",
        "damaged has no config.json",
    ):
        assert problem in message


def test_missing_weights_are_listed_with_the_problems_of_the_data(
    write: Callable[..., Path], damaged: Callable[..., Path], refused: Callable[..., str]
) -> None:
    model = damaged("model.safetensors")
    message = refused(DatasetError, "no text: row 2", train_on=write("table.csv", WRONG), model=model)
    assert "model.safetensors" in message


def test_too_few_rows_are_listed_with_the_problems_of_the_model(
    write: Callable[..., Path], damaged: Callable[..., Path], refused: Callable[..., str]
) -> None:
    file = write("few.csv", "text,label\nhello,a\nbye,b\n")
    message = refused(
        EncortError, "few to hold some back", train_on=file, validation=None, model=damaged("config.json")
    )
    assert "damaged has no config.json" in message


def test_too_few_rows_to_hold_some_back_are_refused(write: Callable[..., Path], refused: Callable[..., str]) -> None:
    file = write("few.csv", "text,label\nhello,a\nbye,b\n")
    refused(DatasetError, "2 rows are too few.*--validation", train_on=file, validation=None)


def test_a_max_length_beyond_the_positions_is_refused(refused: Callable[..., str]) -> None:
    refused(CheckpointError, "max_length 512 is more than the 64 positions", max_length=512)


def test_a_training_that_diverges_is_refused(train_tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"diverged.*lower"):
        train_tiny(output=tmp_path / "checkpoint", epochs=1, batch_size=20, learning_rate=1e30)
    assert not (tmp_path / "checkpoint").exists()


def test_a_training_can_start_after_one_that_diverged(train_tiny: Callable[..., Any], tmp_path: Path) -> None:
    fast = {"output": tmp_path / "checkpoint", "epochs": 1, "batch_size": 40}
    with pytest.raises(DatasetError, match="diverged"):
        train_tiny(**fast, learning_rate=1e30)
    train_tiny(**fast)


# Earlier outputs.


@pytest.fixture
def train_into(train_tiny: Callable[..., Any]) -> Callable[..., Any]:
    def run(output: Path, *, overwrite: bool, **options: Any) -> Any:
        return train_tiny(output=output, overwrite=overwrite, epochs=1, batch_size=20, **options)

    return run


def test_an_earlier_checkpoint_is_replaced_only_with_overwrite(
    trained: Any, tmp_path: Path, train_into: Callable[..., Any]
) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "checkpoint")
    with pytest.raises(OutputExistsError, match="pass overwrite"):
        train_into(folder, overwrite=False)
    assert (folder / "model.safetensors").read_bytes() == trained.weights
    train_into(folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != trained.weights
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_overwrite_leaves_no_files_of_another_task(
    trained: Any, tmp_path: Path, train_into: Callable[..., Any]
) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "checkpoint")
    assert (folder / "confusion.svg").is_file()
    train_into(folder, overwrite=True, task=MultiLabelClassification())
    assert not (folder / "confusion.svg").exists()


def test_an_existing_output_is_refused_before_the_data_is_read(trained: Any, tiny_encoder: Path) -> None:
    with pytest.raises(OutputExistsError):
        train(TextClassification(), model=tiny_encoder, train="no such file.csv", output=trained.folder)


@pytest.mark.parametrize("name", ["thesis.txt", "config.json"])
def test_a_folder_that_no_training_made_is_never_replaced(
    name: str, tmp_path: Path, train_into: Callable[..., Any]
) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(OutputExistsError):
        train_into(folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == [name]


def test_an_earlier_checkpoint_survives_a_failed_run(
    trained: Any, tmp_path: Path, train_into: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "checkpoint")
    monkeypatch.setattr(transformers.Trainer, "evaluate", lambda *_, **__: {}["no metrics"])
    with pytest.raises(KeyError):
        train_into(folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == trained.weights
    # The state of the failed run stays, so that it can be resumed.
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "checkpoint.unfinished"}
