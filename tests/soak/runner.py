"""Runs a scenario in a process of its own, so that a crash or a hang is found, and nothing of it reaches the next."""

import faulthandler
import itertools
import logging
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from tests.soak.models import Models
from tests.soak.scenario import Scenario

SCENARIOS = {
    "traffic": "Traffic",
    "closing": "Closing",
    "replacing": "Replacing",
    "damage": "Damage",
    "signals": "Signals",
    "forks": "Forks",
    "kills": "Kills",
}
"""Class of each scenario, by name. They are strings, so that no process imports what another scenario needs."""
STEP_LIMIT_S = 400
"""Seconds after which a start or a step counts as a hang. They take seconds, and minutes on an overloaded machine."""


class SoakError(Exception):
    """A scenario found a fault; the message has the seed and the step."""


def run_scenario(name: str, models: Models, *, seed: int, seconds: float, first_step: int = 0) -> Counter[str]:
    """Run a scenario and return what it counted.

    Args:
        name: Name of the scenario.
        models: Models to use.
        seed: Seed of all random choices.
        seconds: Time after which no new step begins. At least one step is run.
        first_step: Number of the first step.

    Raises:
        SoakError: The scenario found a fault, or its process crashed or hangs.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_work, args=(name, models, Path(folder), seed, seconds, first_step, sender))
        process.start()
        sender.close()
        try:
            step, message = first_step, _receive(receiver, process)
            while isinstance(message, int):
                step, message = message, _receive(receiver, process)
            if isinstance(message, Counter):
                process.join(STEP_LIMIT_S)
                if process.exitcode == 0:
                    return message
                message = f"after the last step, the exit code was {process.exitcode}; None: it hangs"
        finally:
            process.kill()
            process.join()
    again = f"python -m tests.soak --only {name} --seed {seed} --step {step}"
    raise SoakError(f"{name} failed at seed {seed}, step {step}; repeat it with: {again}\n{message}")


def _work(
    name: str, models: Models, folder: Path, seed: int, seconds: float, first_step: int, progress: Connection
) -> None:
    """Run a scenario, and send the number of each step, and at the end the counts or a traceback."""
    faulthandler.enable()
    logging.getLogger("encort").setLevel(logging.ERROR)  # a replaced folder is warned of again and again
    end = time.monotonic() + seconds
    try:
        scenario: Scenario = getattr(import_module(f"tests.soak.scenarios.{name}"), SCENARIOS[name])(models, folder)
        for step in itertools.count(first_step):
            progress.send(step)
            scenario.step(Random(f"{seed} {name} {step}"))
            scenario.counts["steps"] += 1
            if time.monotonic() >= end:
                break
        scenario.close()
    except BaseException:
        progress.send(traceback.format_exc())
    else:
        progress.send(scenario.counts)


def _receive(receiver: Connection, process: BaseProcess) -> int | str | Counter[str]:
    """Return the next message, or a text that says that the process has died or hangs."""
    if not receiver.poll(STEP_LIMIT_S):
        assert process.pid is not None
        os.kill(process.pid, signal.SIGABRT)  # its fault handler writes the stack of every thread to stderr
        process.join(STEP_LIMIT_S)
        return f"no end within {STEP_LIMIT_S} seconds; the stacks of its threads are above"
    try:
        message: int | str | Counter[str] = receiver.recv()
    except EOFError:
        process.join(STEP_LIMIT_S)
        return f"the process died with exit code {process.exitcode}"
    return message
