"""Participants of a race: one system each, with what was measured of it so far."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from encort.benchmarks.race.models import MODELS
from encort.benchmarks.race.systems import OURS, ROOT, System, SystemProcess, environment, prepare
from encort.benchmarks.results import Outcome
from encort.export.exporter import export_bundle
from encort.export.options import VariantName
from encort.runtime.bundle.cpu import has_instruction_set
from encort.runtime.bundle.kernels import KERNELS
from encort.runtime.cli.readers import read_texts
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.output.terminal import echo

BUILD = ROOT / "build" / "race"
CALIBRATION = 300
"""Number of texts for systems that calibrate; they come from pairs that are not measured."""


class Participant:
    """A system in the race. After its first failure it runs no more; the outcome then has the error.

    Attributes:
        outcome: What was measured so far.
    """

    def __init__(self, system: System) -> None:
        """Register the system; `start` starts its process."""
        self.outcome = Outcome(name=system.name, key=system.key, precision=system.precision)
        self._system = system
        self._process: SystemProcess | None = None

    @contextlib.contextmanager
    def catch_failure(self) -> Iterator[None]:
        """Turn any error into the participant's failure, so that the other participants go on."""
        try:
            yield
        except Exception as error:
            echo(f"{self._system.key}: {error}", err=True)
            self.outcome = replace(self.outcome, error=str(error) or type(error).__name__)
            self.close()

    def start(self, files: "SystemFiles", *, threads: int) -> None:
        """Start the system's process.

        Args:
            files: Environments and prepared models.
            threads: Threads that the system may use.
        """
        with self.catch_failure():
            python, folder = files.make(self._system)
            self._process = SystemProcess(
                self._system, python, checkpoint=files.checkpoint, folder=folder, threads=threads
            )
            self.outcome = replace(
                self.outcome, versions=self._process.versions, load_seconds=self._process.load_seconds
            )

    def embed(self, texts: Sequence[str]) -> FloatArray | None:
        """Return `(texts, dim)` float32, or None after a failure."""
        with self.catch_failure(), tempfile.TemporaryDirectory() as folder:
            if self._process is not None:
                self._process.run([texts], output=Path(folder) / "embeddings.npy")
                embeddings: FloatArray = np.load(Path(folder) / "embeddings.npy")
                return embeddings
        return None

    def time_calls(self, calls: Sequence[Sequence[str]]) -> list[float]:
        """Return the seconds of each call, or an empty list after a failure."""
        with self.catch_failure():
            if self._process is not None:
                answer = self._process.run(calls)
                self.outcome = replace(self.outcome, peak_mib=answer["peak_mib"])
                return [*answer["seconds"]]
        return []

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


class SystemFiles:
    """Environments of the systems, and what they made from one checkpoint; each is made once per race.

    Attributes:
        checkpoint: Folder of the checkpoint.
    """

    def __init__(self, model: str) -> None:
        """Get the checkpoint of a model.

        Args:
            model: A key of `MODELS`.
        """
        self.checkpoint = MODELS[model](BUILD)
        self._prepared = BUILD / "prepared" / model
        self._python = functools.cache(lambda peer: environment(peer, BUILD / "environments"))
        self._bundle = functools.cache(self._export)

    def make(self, system: System) -> tuple[Path, Path]:
        """Return the Python of a system, and the folder with what it serves; make them if they are missing."""
        python = self._python(system.peer)
        if system.peer in OURS:  # their environments cannot export, and one bundle has all variants
            return python, self._bundle()
        folder = self._prepared / system.key.replace(":", "-")
        prepare(system, python, checkpoint=self.checkpoint, folder=folder, texts=_calibration_texts())
        return python, folder

    def _export(self) -> Path:
        folder = self._prepared / OURS[0]
        texts = _calibration_texts()
        bundles: dict[str, list[VariantName]] = {"stock": ["fp32", "int8"], "native": ["native-bf16", "native-int8"]}
        for name, variants in bundles.items():
            if name == "native" and not has_instruction_set(KERNELS):
                continue
            export_bundle(self.checkpoint, folder / name, variants=variants, calibration=texts, overwrite=True)
        return folder


def _calibration_texts() -> list[str]:
    texts = read_texts((), ROOT / "examples" / "stsb" / "train.csv", "text")
    return sorted({str(text) for text in texts})[::10][:CALIBRATION]
