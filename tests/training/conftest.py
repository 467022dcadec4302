"""What the tests of this room share: tables on disk, a tiny encoder, one training run."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from encort.training.settings import TrainingSettings
from encort.training.text_classification import TrainingReport, train_text_classification

TOPICS = {"card_lost": "my card is lost", "change_pin": "change the pin", "greeting": "hello"}
FILLERS = ["", " is", " the", " my", " in", " a", " now", " 1", " 2", " !"]


@pytest.fixture(scope="session", autouse=True)
def _quiet_and_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables are cached in a folder that goes away; few cores are shared by few threads."""
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
    """`write(name, content)`: a file of these characters or bytes."""

    def write_file(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return file

    return write_file


def save_table(file: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([("text", "label"), *rows])
    return file


def separable(fillers: Sequence[str]) -> list[tuple[str, str]]:
    """Texts whose label any encoder can see."""
    return [(f"{text}{filler}", label) for filler in fillers for label, text in TOPICS.items()]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """120 rows to train on and 12 to choose the best epoch by."""
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
    """`train_tiny(model=, **settings)`: one training run that takes a second."""

    def train(*, model: Path = tiny_encoder, train: Path = tables[0], **settings: Any) -> Run:
        seen, original = [], transformers.Trainer.train

        def remember(trainer: transformers.Trainer) -> Any:
            seen.append(trainer)
            return original(trainer)

        folder = tmp_path_factory.mktemp("trained") / "checkpoint"
        fast = {"epochs": 3, "batch_size": 4, "learning_rate": 5e-3}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transformers.Trainer, "train", remember)
            report = train_text_classification(
                model=model,
                train=train,
                validation=tables[1],
                output=folder,
                settings=TrainingSettings(**{**fast, **settings}),
            )
        return Run(report, folder, seen[0])

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Callable[..., Run]) -> Run:
    """The run that most tests look at. Shared: copy its folder before changing it."""
    return train_tiny(weight_decay=0.02, warmup_ratio=0.2, dropout=0.05, seed=3)
