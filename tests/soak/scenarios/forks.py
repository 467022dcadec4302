"""A process forks while its threads call a model."""

import os
import subprocess
import sys
from random import Random

from tests.soak.scenario import Scenario

PROGRAM = """
import pathlib, sys
from tests.soak.forking_process import main
main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""
LIMIT_S = 200
"""Seconds for one process with all its children. It takes a second or two."""


class Forks(Scenario):
    """A forked child exits at once, refuses the parent's model, and can load a model of its own."""

    def step(self, random: Random) -> None:
        bundle, seed = self.models.bundle("first"), random.randrange(2**32)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(bundle), str(seed)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}{done.stderr}"
        self.counts.update(done.stdout.split())
