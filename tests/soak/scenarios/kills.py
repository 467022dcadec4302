"""Exports and trainings are killed with SIGKILL at random moments."""

import csv
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import datasets
import numpy as np

import encort
from encort.export.exporter import export_bundle
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.arrays import FloatArray
from encort.runtime.verification.golden import verify_bundle
from encort.training.settings import TrainingSettings
from encort.training.tasks.text_classification import TextClassification
from encort.training.train import train
from tests.soak.children import Child, in_child
from tests.soak.models import TEXTS, Models
from tests.soak.scenario import Scenario

LIMIT_S = 200
"""Seconds for an export or a training, which takes seconds."""
MOST_KILLS = 3
NAMES = ("first", "second")
TOPICS = {"card_lost": "my card is lost", "change_pin": "change the pin", "hello": "hello"}
ROWS = [(f"{text} {end}", label) for label, text in TOPICS.items() for end in "abcdefgh"]
SETTINGS = TrainingSettings(epochs=3, batch_size=4, learning_rate=3e-3, save_steps=4, seed=3)


class Kills(Scenario):
    """After a kill, an output is whole or absent. The next run gives the right output, and removes what was left."""

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        datasets.config.HF_DATASETS_CACHE = folder / "datasets"
        self._outputs, self._table = folder / "outputs", folder / "train.csv"
        with self._table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *ROWS])
        self._embeddings = {name: in_child(functools.partial(_embeddings, models.bundle(name))) for name in NAMES}
        self._durations_s: dict[str, float] = {}
        self._run("training", folder / "whole")
        self._weights = _weights(folder / "whole")

    def step(self, random: Random) -> None:
        self._outputs.mkdir()
        random.choice([self._kill_exports, self._kill_trainings])(random)
        shutil.rmtree(self._outputs)

    def _kill_exports(self, random: Random) -> None:
        """Kill exports that replace an earlier bundle, or none, then export once more."""
        output = self._outputs / "exported.bundle"
        before = random.choice([None, "second"])
        if before is not None:
            shutil.copytree(self.models.bundle(before), output)
        for _ in range(random.randrange(1, MOST_KILLS + 1)):
            self._kill("export", output, random)
            # Between two renames, the output is absent.
            assert self._origin(output) in (None, before, "first")
        self._run("export", output)
        assert self._origin(output) == "first"
        self._expect_nothing_beside(output)

    def _kill_trainings(self, random: Random) -> None:
        """Kill trainings that go on with each other's state, then go on to the end."""
        output = self._outputs / "trained"
        for _ in range(random.randrange(1, MOST_KILLS + 1)):
            if not output.exists():
                self._kill("training", output, random)
        if not output.exists():
            self._run("training", output)
        assert _weights(output) == self._weights, "a training that was killed and resumed gives other weights"
        self._expect_nothing_beside(output)

    def _kill(self, what: str, output: Path, random: Random) -> None:
        """Start an export or a training and kill it at a random moment, often near its end."""
        first = random.choice([0, 0, 0.9])
        child = Child(self._function(what, output))
        if child.kill((first + random.random() * (1.1 - first)) * self._durations_s.get(what, 2)):
            self.counts[f"killed {what}s"] += 1
        else:
            child.result(LIMIT_S)

    def _run(self, what: str, output: Path) -> None:
        """Run an export or a training to its end."""
        start = time.monotonic()
        in_child(self._function(what, output), limit_s=LIMIT_S)
        self._durations_s[what] = time.monotonic() - start
        self.counts[f"finished {what}s"] += 1

    def _function(self, what: str, output: Path) -> Callable[[], None]:
        if what == "export":
            return functools.partial(_export, self.models.checkpoint("first"), output)
        return functools.partial(_train, self.models.checkpoint("encoder"), self._table, output)

    def _origin(self, output: Path) -> str | None:
        """Check every file of a bundle, and return the name of the bundle with its results; None without a bundle."""
        if not output.exists():
            return None
        embeddings = in_child(functools.partial(_embeddings, output))
        (name,) = (name for name in NAMES if np.allclose(embeddings, self._embeddings[name], atol=1e-4))
        return name

    def _expect_nothing_beside(self, output: Path) -> None:
        left = [path.name for path in self._outputs.iterdir() if path != output]
        assert not left, f"killed runs have left {left}"


def _export(checkpoint: Path, output: Path) -> None:
    _be_quiet()
    export_bundle(checkpoint, output, variants=["fp32"], overwrite=True)


def _train(encoder: Path, table: Path, output: Path) -> None:
    _be_quiet()
    task = TextClassification()
    train(task, model=encoder, train=table, validation=table, output=output, settings=SETTINGS, resume=True)


def _be_quiet() -> None:
    """Drop what the libraries write while they work. Errors go to the parent in another way."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _embeddings(folder: Path) -> FloatArray:
    verify_bundle(Bundle.open(folder))
    with encort.load(folder, threads=1) as model:
        return model.embed(TEXTS)


def _weights(checkpoint: Path) -> bytes:
    return (checkpoint / "model.safetensors").read_bytes()
