"""Leaving the block of a service, closing its model, pickling it, and forking the process."""

import asyncio
import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import encort
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import EncortError, ModelClosedError, WorkerDiedError
from tests.runtime.fakes import hold_runs
from tests.runtime.serving.helpers import SHORT_S, TEXTS, assert_same, wait_for_event

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_leaving_the_block_by_an_error_finishes_accepted_texts(single: encort.Model) -> None:
    context = single.serving()
    calls: list[Future[FloatArray]] = []

    def leave_by_an_error() -> None:
        with context as service:
            calls.append(pool.submit(service.embed, "hello"))
            assert started.wait(10)
            threading.Timer(SHORT_S, release.set).start()
            raise KeyError

    with hold_runs(single) as (started, release), ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError):
            leave_by_an_error()
        assert single.stats().texts == 1
        assert calls[0].result(10).shape == (40,)
    with context as service, pytest.raises(ModelClosedError, match=r"begin another with model.serving\(\)"):
        service.embed("hello")
    assert single.embed(["hello"]).shape == (1, 40)


def test_leaving_the_async_block_by_an_error_finishes_accepted_texts(single: encort.Model) -> None:
    context = single.serving()
    tasks: list[asyncio.Task[FloatArray]] = []

    async def leave_by_an_error() -> None:
        async with context as service:
            tasks.append(asyncio.create_task(service.embed("hello")))
            await wait_for_event(started)
            asyncio.get_running_loop().call_later(SHORT_S, release.set)
            raise KeyError

    async def call_all() -> None:
        with pytest.raises(KeyError):
            await leave_by_an_error()
        assert single.stats().texts == 1
        assert (await tasks[0]).shape == (40,)
        async with context as service:
            with pytest.raises(ModelClosedError):
                await service.embed("hello")

    with hold_runs(single) as (started, release):
        asyncio.run(call_all())


def test_closing_the_model_leaves_no_caller_waiting(fresh_model: encort.Model) -> None:
    done = threading.Semaphore(0)

    def call_until_an_error(number: int) -> Exception | None:
        for _ in range(100_000):
            try:
                assert service.embed(f"hello {number}").shape == (40,)
                done.release()
            except (ModelClosedError, WorkerDiedError) as error:
                return error
        return None

    with ThreadPoolExecutor(8) as pool, fresh_model.serving() as service:
        calls = [pool.submit(call_until_an_error, number) for number in range(8)]
        for _ in range(16):
            assert done.acquire(timeout=10)
        fresh_model.close()
        assert all(isinstance(call.result(30), EncortError) for call in calls)
        with pytest.raises(ModelClosedError):
            service.embed("hello")
    assert fresh_model.stats().queued_tokens == 0


def test_a_pickled_model_is_loaded_again_with_its_options(classifier_bundle: Path) -> None:
    with encort.load(classifier_bundle, threads=1, precision="fp32", spinning=True) as model:
        expected, pickled = model.classify(TEXTS), pickle.dumps(model)
        options = model._options
    with pickle.loads(pickled) as again:
        for result, other in zip(again.classify(TEXTS), expected, strict=True):
            assert_same(result, other)
        assert again._options == options
        assert again._engine.threads == 1
        assert again.manifest == model.manifest


def test_a_spawned_process_can_use_a_model(fresh_model: encort.Model) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        embeddings = pool.apply_async(operator.methodcaller("embed", TEXTS), (fresh_model,)).get(60)
    np.testing.assert_allclose(embeddings, fresh_model.embed(TEXTS), atol=1e-6)


LOAD = """
import os, signal, sys, threading, encort
from concurrent.futures import ThreadPoolExecutor

model = encort.load(sys.argv[1], threads=1)
"""
CHILD_CALLS = """
with model.serving() as service:
    service.embed("hello")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            service.embed("hello")
        except encort.errors.EncortError as error:
            os._exit(7 if "load it after" in str(error) else 8)
        os._exit(9)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if len(service.embed("hello")) == 40 else 10)
"""
CHILD_LEAVES = """
started, release = threading.Event(), threading.Event()
run_micro_batch = model._engine.run_micro_batch

def run(*arguments, **options):
    started.set()
    assert release.wait(30)
    return run_micro_batch(*arguments, **options)

model._engine.run_micro_batch = run
pool = ThreadPoolExecutor(1)
with model.serving() as service:
    running = pool.submit(service.embed, "hello")
    assert started.wait(10)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        release.set()
        os._exit(code if len(running.result(10)) == 40 else 10)
    signal.alarm(3)
os._exit(7)
"""


def exit_code(code: str, bundle: Path) -> int:
    """Run code in a process of its own, with a model of the bundle."""
    return subprocess.run([sys.executable, "-c", LOAD + code, bundle], timeout=60, check=False).returncode


@needs_fork
def test_a_forked_child_is_told_to_load_the_model_again(classifier_bundle: Path) -> None:
    assert exit_code(CHILD_CALLS, classifier_bundle) == 7


@needs_fork
def test_a_forked_child_can_leave_the_block(classifier_bundle: Path) -> None:
    assert exit_code(CHILD_LEAVES, classifier_bundle) == 7
