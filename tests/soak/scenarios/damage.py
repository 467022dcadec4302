"""Damaged and crafted bundles are read."""

import contextlib
import functools
import io
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import encort
from encort.errors import EncortError
from encort.runtime.cli.main import main
from tests.soak import damages
from tests.soak.children import in_child
from tests.soak.models import TEXTS, Models
from tests.soak.scenario import Scenario

MEMORY = 16 * 2**30
"""Bytes of addresses that a child may use. ONNX Runtime and its allocators reserve some of them."""
LONGEST_ERROR = 1000
"""Characters of an error."""
COMMANDS = (["verify"], ["inspect"], ["inspect", "--json"], ["predict", "--threads", "1"])


class Damage(Scenario):
    """A damaged bundle gives a clear error of encort or right results, and nothing outside of its folder is read."""

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        shutil.copytree(models.bundle("first"), folder / damages.OUTSIDE)
        self._intact = in_child(functools.partial(_load, models.bundle("first")))

    def step(self, random: Random) -> None:
        bundle = self.folder / "damaged.bundle"
        shutil.copytree(self.models.bundle("first"), bundle)
        damage = random.choice([*damages.SAME_RESULTS, *damages.ANY_RESULTS, *damages.NO_RESULTS])
        damage(bundle, random)
        try:
            self._load(bundle, damage)
            in_child(functools.partial(_run_command, random.choice(COMMANDS), bundle))
        except Exception as error:
            raise AssertionError(f"after {damage.__name__}: {error}") from error
        self.counts[damage.__name__] += 1
        shutil.rmtree(bundle)

    def _load(self, bundle: Path, damage: damages.Damage) -> None:
        results = in_child(functools.partial(_load, bundle))
        if isinstance(results, str):
            self.counts[results] += 1
            return
        assert damage not in damages.NO_RESULTS, "the bundle was loaded"
        if damage in damages.SAME_RESULTS:
            for result, expected in zip(results, self._intact, strict=True):
                np.testing.assert_allclose(result, expected, atol=1e-5)
            self.counts["right results"] += 1
        else:
            self.counts["results"] += 1


def _load(bundle: Path) -> list[Any] | str:
    """Return results of a bundle, or the name of its error."""
    try:
        with _confined(bundle), encort.load(bundle, threads=1) as model:
            probabilities = [list(result.scores.values()) for result in model.classify(TEXTS)]
            return [model.embed(TEXTS), probabilities]
    except EncortError as error:
        name, length = type(error).__name__, len(str(error))
    assert 0 < length < LONGEST_ERROR, f"a {name} of {length} characters"
    return name


def _run_command(command: list[str], bundle: Path) -> None:
    """Run a command on a bundle, which ends with an exit code and one line on stderr, or with its output."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    name, *options = command
    sys.argv = ["encort", name, str(bundle), *(["hello"] if name == "predict" else []), *options]
    with _confined(bundle), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            code = end.code
    for stream in (stdout, stderr):
        stream.flush()
        text = stream.buffer.getvalue().decode("utf-8")
        assert "\x1b" not in text, f"{command} wrote a terminal escape: {text!r}"
        assert "Traceback" not in text, f"{command} wrote a traceback: {text}"
    assert code in (0, None) or text, f"{command} gave no reason for exit code {code}"


@contextlib.contextmanager
def _confined(bundle: Path) -> Iterator[None]:
    """Limit the memory of this process, and refuse that it opens the neighbours of a bundle, until it ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outside = bundle.parent / damages.OUTSIDE

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            assert not Path(arguments[0]).resolve().is_relative_to(outside), f"{arguments[0]} was opened"

    sys.addaudithook(refuse)
    yield
