"""Function for a process of its own, which loads a bundle, calls it from threads, and forks.

It is imported, and not run as a script: the interpreter does not always collect the variables of a script at its end,
and a child hangs, if it hangs, while it collects the model.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import click
import numpy as np

import encort
from encort.errors import EncortError, ModelClosedError
from encort.runtime.common.arrays import FloatArray
from tests.soak.models import TEXTS

FORKS, CALLERS = 12, 2
LIMIT_S = 60
"""Seconds for a child, which takes a tenth of a second at most."""
MODELS: list[encort.Model] = []
"""The model. A variable of a function that calls `sys.exit` would not be collected."""

Act = Callable[[encort.Model, Path, FloatArray], None]
"""Code of a forked child. It has the parent's model, the bundle, and the embeddings of `TEXTS`."""


def main(bundle: Path, seed: int) -> None:
    """Fork some times while threads call a model, and once more after it was closed; write a word for each child."""
    random = Random(seed)
    MODELS.append(encort.load(bundle, threads=random.randrange(1, 4)))
    expected = MODELS[0].embed(TEXTS)
    for _ in range(random.randrange(4)):
        MODELS[0].embed(TEXTS[:1])
    for _ in range(random.randrange(CALLERS + 1)):
        threading.Thread(target=call_until_closed, daemon=True).start()
    for _ in range(FORKS):
        time.sleep(random.random() * 0.02)
        fork(random.choice(ACTS), bundle, expected)
    MODELS[0].close()
    fork(leave, bundle, expected)


def call_until_closed() -> None:
    """Call the model, with one text and with many texts."""
    while True:
        try:
            MODELS[0].embed(TEXTS[:1])
            MODELS[0].embed(TEXTS)
        except ModelClosedError:
            return


def fork(act: Act, bundle: Path, expected: FloatArray) -> None:
    """Let a child do something and leave this program in the normal way, and expect that it ends in time."""
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(LIMIT_S / 2)
        act(MODELS[0], bundle, expected)
        sys.exit(0)
    deadline = time.monotonic() + LIMIT_S
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            sys.exit(f"after {act.__name__}, a child has not ended within {LIMIT_S} s")
        time.sleep(0.002)
        ended, status = os.waitpid(child, os.WNOHANG)
    if status:
        sys.exit(f"after {act.__name__}, a child ended with status {status}")
    click.echo(act.__name__)


def leave(_: encort.Model, __: Path, ___: FloatArray) -> None:
    """Exit at once, as a worker does that never calls the model."""


def use(model: encort.Model, _: Path, __: FloatArray) -> None:
    """Call the parent's model and a service of it, which is refused."""
    calls: list[Callable[[], FloatArray]] = [
        lambda: model.embed(TEXTS[:1]),
        lambda: model.embed(TEXTS),
        lambda: serve_one_text(model),
    ]
    for call in calls:
        try:
            call()
        except EncortError:
            continue
        raise AssertionError("the parent's model gave a result")


def serve_one_text(model: encort.Model) -> FloatArray:
    """Call a new service of a model."""
    with model.serving() as service:
        return service.embed(TEXTS[0])


def close(model: encort.Model, _: Path, __: FloatArray) -> None:
    """Close the parent's model."""
    model.close()


def load_again(_: encort.Model, bundle: Path, expected: FloatArray) -> None:
    """Load the bundle anew and use it."""
    with encort.load(bundle, threads=2) as model:
        np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5)
        for text, embedding in zip(TEXTS, expected, strict=True):  # single texts, on all cores
            np.testing.assert_allclose(model.embed([text])[0], embedding, atol=1e-5)


ACTS: tuple[Act, ...] = (leave, use, close, load_again)
