"""A signal handler raises an exception at a random moment of a call, as Ctrl-C or an alarm does."""

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import FrameType

import numpy as np

import encort
from encort.errors import ModelClosedError
from tests.runtime.interrupts import Interrupt
from tests.soak.models import TEXTS, Models
from tests.soak.scenario import Scenario

LIMIT_S = 30
"""Seconds within which every call must end. They take milliseconds."""
CALLERS = 2
"""Threads that call the service meanwhile."""


class Alarm:
    """Raises an `Interrupt` in the main thread once, after some time."""

    def __init__(self) -> None:
        self._is_set = False
        signal.signal(signal.SIGALRM, self._ring)

    def interrupt(self, call: Callable[[], object], *, after_s: float) -> bool:
        """Call a function in the main thread, and return whether it was interrupted."""
        try:
            try:
                self._is_set = True
                signal.setitimer(signal.ITIMER_REAL, after_s)
                call()
            finally:
                self._is_set = False
        except Interrupt:
            self._is_set = False
            return True
        return False

    def _ring(self, _: int, __: FrameType | None) -> None:
        if self._is_set:
            self._is_set = False
            raise Interrupt


class Signals(Scenario):
    """After an interrupt, the next callers get right results, and close returns and ends all threads."""

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        self._alarm, self._pool = Alarm(), ThreadPoolExecutor(CALLERS + 1)
        self._durations_s: dict[str, float] = {}
        sys.unraisablehook = self._count_ignored
        with encort.load(models.bundle("first"), threads=1) as model:
            self._embeddings = model.embed(TEXTS)

    def step(self, random: Random) -> None:
        """Interrupt calls of one model, then close it."""
        model = encort.load(self.models.bundle("first"), threads=random.randrange(1, 4))
        context = model.serving(max_wait_ms=random.choice([0, 0, 1]))
        service = context.__enter__()
        callers = [self._pool.submit(self._call_until_closed, service, Random(random.random())) for _ in range(CALLERS)]
        for _ in range(random.randrange(1, 40)):
            self._interrupt_a_call(model, service, random)
            self._expect_end("a call after an interrupt", self._pool.submit(self._check_one_text, model, service))
        for what, close in {
            "closing the service": lambda: context.__exit__(None, None, None),
            "closing the model": model.close,
        }.items():
            self._interrupt(what, close, random)
            self._expect_end(what, self._pool.submit(close))
            self.counts[what] += 1
        for caller in callers:
            self._expect_end("another caller", caller)
        for thread in threading.enumerate():
            if thread.name.startswith("encort"):
                self._expect_end(thread.name, self._pool.submit(_wait_for_end, thread))

    def close(self) -> None:
        self._pool.shutdown()

    def _interrupt_a_call(self, model: encort.Model, service: encort.Service, random: Random) -> None:
        index = random.randrange(len(TEXTS))
        what, call = random.choice(
            [
                ("a lone text", lambda: model.embed(TEXTS[index : index + 1])),
                ("many texts", lambda: model.embed(TEXTS)),
                ("a text of the service", lambda: service.embed(TEXTS[index])),
                ("a text with a deadline", lambda: service.embed(TEXTS[index], timeout_s=LIMIT_S)),
            ]
        )
        self._interrupt(what, call, random)

    def _interrupt(self, what: str, call: Callable[[], object], random: Random) -> None:
        """Interrupt a call at a random moment. Some calls end before it."""
        most_s = self._durations_s.get(what, 0.001) * 1.5
        start = time.perf_counter()
        if self._alarm.interrupt(call, after_s=max(random.random() * most_s, 1e-6)):
            self.counts[f"interrupts of {what}"] += 1
        else:
            self._durations_s[what] = time.perf_counter() - start

    def _count_ignored(self, ignored: "sys.UnraisableHookArgs") -> None:
        """Count the interrupts in finalizers and callbacks of weak references, where Python can raise nothing."""
        if ignored.exc_type is Interrupt:
            self.counts["ignored interrupts"] += 1
        else:
            sys.__unraisablehook__(ignored)

    def _check_one_text(self, model: encort.Model, service: encort.Service) -> None:
        np.testing.assert_allclose(service.embed(TEXTS[1]), self._embeddings[1], atol=1e-5)
        np.testing.assert_allclose(model.embed(TEXTS[2:3]), self._embeddings[2:3], atol=1e-5)

    def _call_until_closed(self, service: encort.Service, random: Random) -> None:
        while True:
            index = random.randrange(len(TEXTS))
            try:
                embedding = service.embed(TEXTS[index])
            except ModelClosedError:
                return
            np.testing.assert_allclose(embedding, self._embeddings[index], atol=1e-5)

    def _expect_end(self, what: str, future: "Future[None]") -> None:
        try:
            future.result(LIMIT_S)
        except TimeoutError:
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError(f"{what} has not ended within {LIMIT_S} s; the stacks are above") from None


def _wait_for_end(thread: threading.Thread) -> None:
    """Wait for the end of a thread. Its `join` may have been interrupted, and then returns at once for ever."""
    while thread in threading.enumerate():
        time.sleep(0.001)
