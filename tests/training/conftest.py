"""Fixtures for the tests of training: tables on disk, a tiny encoder, and training runs that take a second."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from encort.training.report import TrainingReport
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import TrainingTask
from encort.training.tasks.text_classification import MultiLabelClassification, TextClassification, TextRegression
from encort.training.train import train as run_training

TOPICS = {"card_lost": "my card is lost", "change_pin": "change the pin", "greeting": "hello"}
FILLERS = ["", " is", " the", " my", " in", " a", " now", " 1", " 2", " !"]


@pytest.fixture(scope="session", autouse=True)
def _isolate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache tables in a temporary folder, and use one thread, since tests share few cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("datasets"))
        patch.setenv("HF_DATASETS_CACHE", cache)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", Path(cache))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return `write(name, content)`, which writes a file of these characters or bytes."""

    def write_file(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return file

    return write_file


def save_table(file: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Write a CSV file of texts with labels."""
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([("text", "label"), *rows])
    return file


def separable(fillers: Sequence[str]) -> list[tuple[str, str]]:
    """Return texts whose label any encoder can learn."""
    return [(f"{text}{filler}", label) for filler in fillers for label, text in TOPICS.items()]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return files with 120 rows to train on and 12 rows to validate on."""
    folder = tmp_path_factory.mktemp("tables")
    train = save_table(folder / "train.csv", 4 * separable(FILLERS))
    return train, save_table(folder / "validation.csv", separable([" ?", " ok", " 7", " b"]))


@pytest.fixture(scope="session")
def tiny_encoder(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(
        seed=1,
        hidden_size=24,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=48,
    )


@dataclass(frozen=True)
class Run:
    """A finished training, with its trainer."""

    report: TrainingReport
    folder: Path
    trainer: transformers.Trainer

    @property
    def config(self) -> Any:
        return json.loads((self.folder / "config.json").read_text())

    @property
    def weights(self) -> bytes:
        return (self.folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="session")
def train_tiny(
    tables: tuple[Path, Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """Return `train_tiny(task=, model=, train=, ..., **settings)`, a training run that takes a second.

    Without `train`, it learns to classify the texts of `tables`. Options that are no settings are arguments of `train`.
    """
    setting_names = {field.name for field in fields(TrainingSettings)}

    def train(
        *,
        task: TrainingTask | None = None,
        model: Path = tiny_encoder,
        train: str | Path | None = None,
        output: Path | None = None,
        **options: Any,
    ) -> Run:
        trainers, original = [], transformers.Trainer.train

        def remember(trainer: transformers.Trainer, **how: Any) -> Any:
            trainers.append(trainer)
            return original(trainer, **how)

        folder = output or tmp_path_factory.mktemp("trained") / "checkpoint"
        settings = {name: options.pop(name) for name in setting_names & options.keys()}
        if train is None:
            train, options = tables[0], {"validation": tables[1], **options}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transformers.Trainer, "train", remember)
            report = run_training(
                task or TextClassification(),
                model=model,
                train=train,
                output=folder,
                settings=TrainingSettings(**{"epochs": 3, "batch_size": 4, "learning_rate": 5e-3, **settings}),
                **options,
            )
        return Run(report, folder, trainers[0])

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Callable[..., Run]) -> Run:
    """Train the run that most tests look at. Shared: copy its folder before you change it."""
    return train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=3)


@pytest.fixture(scope="session")
def trained_labels(train_tiny: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a run that knows which topics are in a text: none, one or two. Shared: copy before you change it."""
    folder = tmp_path_factory.mktemp("labels")
    label_sets = [[], *([label] for label in TOPICS), ["card_lost", "greeting"], ["change_pin", "greeting"]]
    rows = [(" ".join(["the", *(TOPICS[label] for label in labels)]), labels) for labels in label_sets]
    train, validation = folder / "train.csv", folder / "validation.jsonl"
    save_table(train, [(f"{text}{filler}", "|".join(labels)) for filler in 4 * FILLERS for text, labels in rows])
    lines = [json.dumps({"text": f"{text} ?", "labels": labels}) + "\n" for text, labels in rows]
    validation.write_text("".join(lines), encoding="utf-8")
    return train_tiny(task=MultiLabelClassification(), train=train, validation=validation, epochs=6)


@pytest.fixture(scope="session")
def trained_scores(train_tiny: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a run that scores each topic: -2, 1 and 4. Shared: copy before you change it."""
    folder = tmp_path_factory.mktemp("scores")
    scores = dict(zip(TOPICS, ("-2", "1.0", "4"), strict=True))
    files = [
        save_table(folder / name, [(text, scores[label]) for text, label in separable(fillers)])
        for name, fillers in (("train.csv", 4 * FILLERS), ("validation.csv", [" ?", " ok"]))
    ]
    return train_tiny(task=TextRegression(), train=files[0], validation=files[1], epochs=5)
