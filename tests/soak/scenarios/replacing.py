"""A bundle's folder is replaced while models are loaded from it and called."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import encort
from encort.errors import BundleFileChangedError, BundleFileMissingError
from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.folders import new_folder
from tests.soak.models import TEXTS, Models
from tests.soak.scenario import Scenario

LOADERS, CALLERS = 2, 3
"""Threads that load models, and threads that call each model."""
NAMES = ("first", "second")
"""The bundles, which differ in their weights."""


class Replacing(Scenario):
    """All results of one model come from one set of weights, however its folder is replaced meanwhile."""

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        self._bundle = folder / "served.bundle"
        self._embeddings: dict[str, FloatArray] = {}
        for name in NAMES:
            with encort.load(models.bundle(name), threads=1) as model:
                self._embeddings[name] = model.embed(TEXTS)
        self._done = threading.Event()

    def step(self, random: Random) -> None:
        """Replace the folder some times, while threads load it and call what they have loaded."""
        self._replace_folder("first")
        self._done.clear()
        with ThreadPoolExecutor(LOADERS) as pool:
            loads = [pool.submit(self._load_until_done, Random(random.random())) for _ in range(LOADERS)]
            try:
                for _ in range(random.randrange(1, 8)):
                    self._done.wait(random.choice([0, 0.01, 0.1]) * random.random())
                    random.choice([self._replace_folder, self._replace_files])(random.choice(NAMES))
                    self.counts["replacements"] += 1
            finally:
                self._done.set()
            for load in loads:
                load.result()

    def _replace_folder(self, name: str) -> None:
        """Replace the folder by one of the bundles, as an export does."""
        with new_folder(self._bundle, marker=MANIFEST_FILE, overwrite=True) as folder:
            shutil.copytree(self.models.bundle(name), folder, dirs_exist_ok=True)

    def _replace_files(self, name: str) -> None:
        """Replace one file after the other."""
        for file in self.models.bundle(name).iterdir():
            Path(shutil.copy(file, self.folder / "copied")).replace(self._bundle / file.name)

    def _load_until_done(self, random: Random) -> None:
        while not self._done.is_set():
            try:
                model = encort.load(self._bundle, threads=random.randrange(1, 4))
            except (BundleFileMissingError, BundleFileChangedError) as error:
                # Between two renames there is no folder, or it has files of both bundles.
                self.counts[type(error).__name__] += 1
                continue
            with model:
                self._call(model, random)
            self.counts["models"] += 1

    def _call(self, model: encort.Model, random: Random) -> None:
        """Call a model and its service from several threads."""
        with model.serving() as service, ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(self._weights, model, service, Random(random.random())) for _ in range(CALLERS)]
            if random.random() < 0.3:
                model.warm_up()
            weights = set[str]().union(*(call.result() for call in calls))
        assert len(weights) == 1, f"the results of one model come from {weights}"

    def _weights(self, model: encort.Model, service: encort.Service, random: Random) -> set[str]:
        """Return the names of the bundles whose weights gave the results of some calls."""
        names = set()
        for _ in range(random.randrange(1, 20)):
            first = random.randrange(len(TEXTS))
            texts = TEXTS[first : first + random.choice([1, 1, 1, 8])]
            calls: list[Any] = [model.embed, lambda texts: [service.embed(text) for text in texts]]
            names.add(self._origin(random.choice(calls)(texts), first))
            self.counts["results"] += len(texts)
        return names

    def _origin(self, embeddings: Any, first: int) -> str:
        """Return the name of the bundle that gives these embeddings of the texts from `first` on."""
        end = first + len(embeddings)
        for name, expected in self._embeddings.items():
            if np.allclose(embeddings, expected[first:end], atol=1e-5):
                return name
        return "no bundle"
