"""Concurrent callers of a real model, from threads and from asyncio: they get what `Model` gives, or an error."""

import asyncio
import dataclasses
import multiprocessing
import operator
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import encort
from encort.runtime.common.errors import (
    DeadlineError,
    EncortError,
    InputError,
    InputTooLongError,
    InputTypeError,
    ModelClosedError,
    OverloadedError,
    WorkerDiedError,
    WrongTaskError,
)

LABELS = ["card_lost", "change_pin", "hello"]
TEXTS = ["hello", "", "my card is lost", "안녕하세요 😀", "change my pin " * 5, "card " * 200]
PAIRS = [
    ("is it lost?", "my card is lost"),
    ("안녕?", "😀 hello 하이"),
    ("nothing", ""),
    ("pin?", "my pin is lost " * 60),
]
CALLS = [
    ("embed", TEXTS, {}),
    ("embed", TEXTS, {"overflow": "window", "stride": 3}),
    ("embed", PAIRS, {}),
    ("embed_tokens", TEXTS, {}),
    ("embed_tokens", TEXTS, {"overflow": "window"}),
    ("classify", TEXTS, {}),
    ("classify", PAIRS, {"head": "topics", "overflow": "truncate"}),
    ("classify", TEXTS, {"head": "moods", "overflow": "window"}),
    ("score", TEXTS, {}),
    ("score", TEXTS, {"head": "stars", "overflow": "window"}),
    ("tag", TEXTS, {}),
    ("tag", TEXTS, {"head": "tags", "overflow": "window", "stride": 0}),
    ("answer", PAIRS, {}),
    ("answer", PAIRS, {"n_best": 4, "head": "answers"}),
    ("answer", PAIRS, {"n_best": 2, "overflow": "truncate"}),
    ("predict", TEXTS, {}),
]
LONG = "card " * 20_000


@pytest.fixture(scope="module")
def several(multi_head):
    with encort.load(multi_head, threads=2) as model:
        yield model


@pytest.fixture
def model(classifier_bundle):
    """A model that has done nothing yet."""
    with encort.load(classifier_bundle, threads=2) as model:
        yield model


@pytest.fixture
def single(classifier_bundle):
    """A model of one thread that has done nothing yet."""
    with encort.load(classifier_bundle, threads=1) as model:
        yield model


def waits(event):
    """Wait for it beside the event loop."""
    return asyncio.to_thread(event.wait, 10)


async def until(condition, *, tries=1000):
    for _ in range(tries):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def assert_same(found, wanted):
    """Equal to the last text, number of a token and label; numbers within 1e-6."""
    if isinstance(wanted, float | np.ndarray | np.floating):
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-6)
    elif dataclasses.is_dataclass(wanted):
        assert type(found) is type(wanted)
        for field in dataclasses.fields(wanted):
            assert_same(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, Mapping):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert (type(found), len(found), vars(found)) == (type(wanted), len(wanted), vars(wanted))
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


def made_up_texts():
    """A few dozen texts of many lengths."""
    numbers = np.random.default_rng(0)
    words = ["card", "my", "lost", "hello", "pin", "change", "안녕", "play", "x9"]
    return [f"{index} " + " ".join(numbers.choice(words, index)) for index in range(30)]


def assert_adds_up(stats, *, calls, overloads):
    """All calls were of one row each."""
    assert stats.queued_tokens == 0
    assert stats.overloads == overloads
    assert stats.texts + stats.shared + stats.expired == calls - overloads
    assert stats.queue_seconds.count == stats.texts
    assert stats.failures == 0


@pytest.mark.parametrize(("task", "texts", "options"), CALLS)
def test_a_service_gives_what_the_model_gives(several, task, texts, options):
    wanted = getattr(several, task)(texts, **options)
    with several.serving() as service, ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: getattr(service, task)(text, **options), texts))
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, float(other) if task == "score" else other)


@pytest.mark.parametrize(("task", "texts", "options"), CALLS)
def test_an_async_service_gives_what_the_model_gives(several, task, texts, options):
    wanted = getattr(several, task)(texts, **options)

    async def ask():
        async with several.serving() as service:
            return await asyncio.gather(*(getattr(service, task)(text, **options) for text in texts))

    for one, other in zip(asyncio.run(ask()), wanted, strict=True):
        assert_same(one, float(other) if task == "score" else other)


def test_types_of_results(several):
    with several.serving() as service:
        embedding, score = service.embed("hello"), service.score("hello")
        tokens, answers = service.embed_tokens("hello"), service.answer(PAIRS[0])
    assert (embedding.shape, embedding.dtype, tokens.shape, type(score)) == ((40,), np.float32, (3, 40), float)
    assert (type(answers), answers.tokens, answers.truncated) == (encort.Matches, 12, False)


@pytest.mark.parametrize("task", ["tag", "answer", "embed"])
def test_a_long_context_is_read_in_windows(several, task):
    text = PAIRS[3] if task == "answer" else PAIRS[3][1]
    before = several.stats().texts
    with several.serving() as service:
        found = getattr(service, task)(text, overflow="window")
    windows = len(several.tokenize([text], overflow="window"))
    assert windows > 3
    assert 1 <= several.stats().texts - before <= windows
    assert_same(found, getattr(several, task)([text], overflow="window")[0])


def test_predict_without_heads_is_embed(encoder):
    with encoder.serving() as service:
        assert_same(service.predict("my card is lost"), encoder.embed(["my card is lost"])[0])


@pytest.fixture(scope="module")
def regression_bundle(make_checkpoint, tmp_path_factory):
    from encort.export.exporter import export_bundle

    return export_bundle(
        make_checkpoint(labels=["stars"]), tmp_path_factory.mktemp("r") / "b", variants=["fp32"]
    ).folder


def test_predict_of_a_regression_is_a_float(regression_bundle):
    with encort.load(regression_bundle, threads=1) as model:
        wanted = float(model.score(["hello"])[0])

        async def ask():
            async with model.serving() as service:
                return await service.predict("hello")

        with model.serving() as service:
            found = [service.predict("hello"), asyncio.run(ask())]
    assert [type(score) for score in found] == [float, float]
    assert found == pytest.approx([wanted, wanted], abs=1e-6)


def test_64_threads_get_their_own_results_or_an_error(model):
    texts = made_up_texts()
    wanted = model.embed(texts)
    before = model.stats()
    together = threading.Barrier(64)

    def call(seed):
        chance, outcomes = random.Random(seed), []
        together.wait(30)
        for _ in range(25):
            index = chance.randrange(len(texts))
            timeout_s = chance.choice([None, 30, 30, chance.uniform(1e-6, 0.01)])
            try:
                found = service.embed(texts[index], timeout_s=timeout_s)
            except (DeadlineError, OverloadedError) as error:
                outcomes.append(type(error).__name__)
                continue
            np.testing.assert_allclose(found, wanted[index], atol=1e-6)
            outcomes.append("done")
        return outcomes

    with ThreadPoolExecutor(64) as pool, model.serving(queue_tokens=600) as service:
        outcomes = [outcome for found in pool.map(call, range(64)) for outcome in found]
    stats = model.stats()
    assert len(outcomes) == 64 * 25
    assert outcomes.count("done") > 64
    since = dataclasses.replace(stats, texts=stats.texts - before.texts)
    assert_adds_up(since, calls=len(outcomes), overloads=outcomes.count("OverloadedError"))


def test_1000_asyncio_callers_get_their_own_results_or_an_error(model):
    texts = made_up_texts()
    wanted = model.classify(texts)
    before = model.stats()
    chance = random.Random(0)

    async def call(service, index, timeout_s):
        return index, await service.classify(texts[index], timeout_s=timeout_s)

    async def ask():
        async with model.serving(queue_tokens=100_000) as service:
            calls = []
            for number in range(1000):
                timeout_s = chance.choice([None, 30, 30, chance.uniform(1e-6, 0.05)])
                calls.append(asyncio.create_task(call(service, chance.randrange(len(texts)), timeout_s)))
                if number % 7 == 0:
                    await asyncio.sleep(0)
                if number % 5 == 0:
                    chance.choice(calls).cancel()
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    outcomes = asyncio.run(ask())
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in errors} <= {DeadlineError, asyncio.CancelledError}
    assert asyncio.CancelledError in {type(error) for error in errors}
    done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert (len(outcomes), len(done) > 100) == (1000, True)
    for index, found in done:
        assert_same(found, wanted[index])
    stats = model.stats()
    accepted = stats.texts - before.texts + stats.shared + stats.expired
    assert len(done) <= accepted <= 1000
    assert (stats.queued_tokens, stats.overloads, stats.failures) == (0, 0, 0)


def test_threads_asyncio_and_whole_lists_share_one_model(model):
    texts = made_up_texts()
    wanted = model.embed(texts)

    async def ask():
        async with model.serving(max_wait_ms=1) as service:
            return await asyncio.gather(*(service.embed(text) for text in texts * 3))

    with ThreadPoolExecutor(12) as pool, model.serving() as service:
        asked = pool.submit(asyncio.run, ask())
        lists = [pool.submit(model.embed, texts) for _ in range(2)]
        singles = [pool.submit(service.embed, text) for text in texts * 3]
        np.testing.assert_allclose(asked.result(60), np.tile(wanted, (3, 1)), atol=1e-6)
        np.testing.assert_allclose([one.result(60) for one in singles], np.tile(wanted, (3, 1)), atol=1e-6)
        for found in lists:
            np.testing.assert_allclose(found.result(60), wanted, atol=1e-6)
    assert model.stats().queued_tokens == 0


def test_a_text_without_a_result_in_time_is_a_timeout(single, held):
    with held(single) as (began, free), ThreadPoolExecutor(1) as pool, single.serving() as service:
        running = pool.submit(service.embed, "hello")
        assert began.wait(10)
        for text in ("my card", "hello"):
            with pytest.raises(TimeoutError, match="timeout_s") as raised:
                service.embed(text, timeout_s=0.02)
            assert type(raised.value) is DeadlineError
        free.set()
        assert running.result(10).shape == (40,)
    assert (single.stats().texts, single.stats().expired) == (1, 1)


def test_an_async_text_without_a_result_in_time_is_a_timeout(single, held):
    async def ask():
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await waits(began)
            for text in ("my card", "hello"):
                with pytest.raises(TimeoutError, match="timeout_s") as raised:
                    await service.embed(text, timeout_s=0.02)
                assert type(raised.value) is DeadlineError
            free.set()
            assert (await running).shape == (40,)

    with held(single) as (began, free):
        asyncio.run(ask())
    assert (single.stats().texts, single.stats().expired) == (1, 1)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_must_be_above_zero(classifier, timeout_s):
    with classifier.serving() as service, pytest.raises(InputError, match="timeout_s must be a number above 0, got"):
        service.embed("hello", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", ["1", True, [1]])
def test_a_timeout_must_be_a_number(classifier, timeout_s):
    with classifier.serving() as service, pytest.raises(InputTypeError, match="timeout_s must be a number, got"):
        service.embed("hello", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", [np.float32(30), np.float64(30), np.int64(30)])
def test_a_timeout_may_be_a_number_of_numpy(classifier, timeout_s):
    with classifier.serving() as service:
        assert service.embed("hello", timeout_s=timeout_s).shape == (40,)


def test_an_infinite_timeout_is_refused_or_waits(classifier):
    with classifier.serving() as service:
        try:
            assert service.embed("hello", timeout_s=float("inf")).shape == (40,)
        except InputError as error:
            assert "timeout_s" in str(error)  # noqa: PT017 - either will do


def test_a_full_queue_refuses_and_takes_texts_again(single, held):
    with held(single) as (began, free), ThreadPoolExecutor(2) as pool, single.serving(queue_tokens=64) as service:
        running = pool.submit(service.embed, "hello")
        assert began.wait(10)
        queued = pool.submit(service.embed, LONG)
        asyncio.run(until(lambda: single.stats().queued_tokens == 64))
        with pytest.raises(OverloadedError, match="64 tokens wait, and 3 more"):
            service.embed("card")
        assert single.stats().overloads == 1
        free.set()
        assert running.result(10).shape == queued.result(10).shape == (40,)
        assert service.embed("card").shape == (40,)


def test_the_queue_must_hold_the_longest_text(single):
    single.serving(queue_tokens=64)
    with pytest.raises(InputError, match="queue_tokens must be at least 64, one text; got 63"):
        single.serving(queue_tokens=63)
    with pytest.raises(InputError, match="max_wait_ms must be a number of at least 0, got -5"):
        single.serving(max_wait_ms=-5)
    with pytest.raises(InputError, match="max_wait_ms"):
        single.serving(max_wait_ms=float("nan"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"queue_tokens": "x"}, "queue_tokens must be a whole number, got 'x'"),
        ({"queue_tokens": 100.0}, "queue_tokens must be a whole number"),
        ({"max_wait_ms": "2"}, "max_wait_ms must be a number, got '2'"),
        ({"max_wait_ms": None}, "max_wait_ms must be a number"),
    ],
)
def test_an_option_of_a_queue_that_is_no_number_is_refused(single, option, message):
    with pytest.raises(InputTypeError, match=message):
        single.serving(**option)


def test_options_of_a_queue_may_be_numbers_of_numpy(single):
    with single.serving(max_wait_ms=np.float32(0.5), queue_tokens=np.int32(64)) as service:
        assert service.embed("hello").shape == (40,)


def test_leaving_the_block_by_an_error_still_finishes_what_was_taken(single, held):
    serving, calls = single.serving(), []

    def leave():
        with serving as service:
            calls.append(pool.submit(service.embed, "hello"))
            assert began.wait(10)
            threading.Timer(0.1, free.set).start()
            raise KeyError

    with held(single) as (began, free), ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError):
            leave()
        assert single.stats().texts == 1
        assert calls[0].result(10).shape == (40,)
    with serving as service, pytest.raises(ModelClosedError, match=r"begin another with model.serving\(\)"):
        service.embed("hello")
    assert single.embed(["hello"]).shape == (1, 40)


def test_leaving_the_async_block_by_an_error_still_finishes_what_was_taken(single, held):
    serving, tasks = single.serving(), []

    async def leave():
        async with serving as service:
            tasks.append(asyncio.create_task(service.embed("hello")))
            await waits(began)
            asyncio.get_running_loop().call_later(0.1, free.set)
            raise KeyError

    async def ask():
        with pytest.raises(KeyError):
            await leave()
        assert single.stats().texts == 1
        assert (await tasks[0]).shape == (40,)
        async with serving as service:
            with pytest.raises(ModelClosedError):
                await service.embed("hello")

    with held(single) as (began, free):
        asyncio.run(ask())


def test_a_cancelled_task_takes_its_text_out_of_the_queue(single, held):
    async def ask():
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await waits(began)
            leaving = asyncio.create_task(service.embed("my card", timeout_s=30))
            await until(lambda: single.stats().queued_tokens == 4)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert (single.stats().queued_tokens, single.stats().expired) == (0, 1)
            free.set()
            assert (await running).shape == (40,)

    with held(single) as (began, free):
        asyncio.run(ask())
    assert single.stats().texts == 1


def test_a_cancelled_task_takes_its_long_text_out_too(single, held):
    begins, goes_on, over = threading.Event(), threading.Event(), threading.Event()

    async def ask():
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await waits(began)
            tokenize = service._intake.tokenize

            def slowly(*arguments):
                begins.set()
                assert goes_on.wait(30)
                try:
                    return tokenize(*arguments)
                finally:
                    over.set()

            service._intake.tokenize = slowly
            leaving = asyncio.create_task(service.embed(LONG))
            await waits(begins)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            goes_on.set()
            await waits(over)
            try:
                await until(lambda: single.stats().queued_tokens == 0, tries=100)
            finally:
                free.set()
            assert (await running).shape == (40,)

    with held(single) as (began, free):
        asyncio.run(ask())
    assert single.stats().texts == 1


def test_100_000_characters_go_through_an_async_service(several):
    text = LONG[:100_000]
    assert len(text) == 100_000

    async def ask():
        async with several.serving() as service:
            return await asyncio.gather(
                service.classify(text),
                service.embed((text, "hello")),
                service.embed(text[:10_000], overflow="window"),
                service.embed("hello"),
            )

    cut, pair, windows, short = asyncio.run(ask())
    assert (cut.tokens, cut.truncated) == (64, True)
    assert_same(cut, several.classify([text])[0])
    assert_same(pair, several.embed([(text, "hello")])[0])
    assert_same(windows, several.embed([text[:10_000]], overflow="window")[0])
    assert_same(short, several.embed(["hello"])[0])


def test_closing_the_model_while_callers_are_served_leaves_nobody_waiting(model):
    many = threading.Semaphore(0)

    def call(number):
        for _ in range(100_000):
            try:
                assert service.embed(f"hello {number}").shape == (40,)
                many.release()
            except (ModelClosedError, WorkerDiedError) as error:
                return error
        return None

    with ThreadPoolExecutor(8) as pool, model.serving() as service:
        calls = [pool.submit(call, number) for number in range(8)]
        for _ in range(16):
            assert many.acquire(timeout=10)
        model.close()
        assert all(isinstance(one.result(30), EncortError) for one in calls)
        with pytest.raises(ModelClosedError):
            service.embed("hello")
    assert model.stats().queued_tokens == 0


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda service: service.tag("hello"), WrongTaskError),
        (lambda service: service.classify("hello", head="moods"), WrongTaskError),
        (lambda service: service.embed("\ud800"), InputError),
        (lambda service: service.embed(LONG, overflow="error"), InputTooLongError),
        (lambda service: service.embed("hello", overflow="windows"), InputError),
        (lambda service: service.embed(LONG, overflow="window", stride=64), InputTooLongError),
        (lambda service: service.embed("hello", stride="x"), InputTypeError),
        (lambda service: service.embed(["hello", "hello"]), InputTypeError),
        (lambda service: service.embed(("a", "b", "c")), InputTypeError),
    ],
)
def test_what_the_model_refuses_a_service_refuses(classifier, ask, error):
    async def ask_async():
        async with classifier.serving() as service:
            await ask(service)

    with classifier.serving() as service, pytest.raises(error):
        ask(service)
    with pytest.raises(error):
        asyncio.run(ask_async())


@pytest.mark.parametrize("text", [None, 3, b"bytes", ("hello", None)])
def test_what_is_not_a_text_is_refused(classifier, text):
    with classifier.serving() as service, pytest.raises(InputTypeError, match="expected a"):
        service.embed(text)


@pytest.mark.parametrize("text", [None, 3, b"bytes", ("hello", None)])
def test_what_is_not_a_text_is_refused_by_asyncio_too(classifier, text):
    async def ask():
        async with classifier.serving() as service:
            await service.embed(text)

    with pytest.raises(InputTypeError, match="expected a"):
        asyncio.run(ask())


@pytest.mark.parametrize("option", [{"timeout": 3}, {"overflows": "error"}, {"head": "topics"}])
def test_an_unknown_option_is_refused(classifier, option):
    with classifier.serving() as service, pytest.raises(TypeError, match=next(iter(option))):
        service.embed("hello", **option)


def test_questions_are_pairs_and_tags_are_of_single_texts(several):
    with several.serving() as service:
        with pytest.raises(InputTypeError, match="pair of question and context"):
            service.answer("hello")
        with pytest.raises(InputTypeError, match="pairs cannot be tagged"):
            service.tag(PAIRS[0])
        with pytest.raises(InputError, match="n_best must be at least 1, got 0"):
            service.answer(PAIRS[0], n_best=0)
        with pytest.raises(InputTypeError, match="n_best must be a whole number, got '2'"):
            service.answer(PAIRS[0], n_best="2")
    assert several.stats().queued_tokens == 0


def test_a_pickled_model_is_loaded_again_with_its_options(classifier_bundle):
    with encort.load(classifier_bundle, threads=1, precision="fp32", spinning=True) as model:
        wanted, packed = model.classify(TEXTS), pickle.dumps(model)
        options = model._options
    with pickle.loads(packed) as again:
        for found, other in zip(again.classify(TEXTS), wanted, strict=True):
            assert_same(found, other)
        assert again._options == options
        assert again._engine.threads == 1
        assert again.manifest == model.manifest


def test_a_model_goes_to_a_spawned_process(model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply_async(operator.methodcaller("embed", TEXTS), (model,)).get(60)
    np.testing.assert_allclose(found, model.embed(TEXTS), atol=1e-6)


FORK = """
import os, signal, sys, threading, encort
from concurrent.futures import ThreadPoolExecutor

model = encort.load(sys.argv[1], threads=1)
began, free = threading.Event(), threading.Event()
run_micro_batch = model._engine.run_micro_batch

def run(*arguments, **options):
    began.set()
    assert free.wait(30)
    return run_micro_batch(*arguments, **options)
"""
ASKS = """
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
LEAVES = """
model._engine.run_micro_batch = run
pool = ThreadPoolExecutor(1)
with model.serving() as service:
    running = pool.submit(service.embed, "hello")
    assert began.wait(10)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        free.set()
        os._exit(code if len(running.result(10)) == 40 else 10)
    signal.alarm(3)
os._exit(7)
"""


def forked(code, bundle):
    return subprocess.run([sys.executable, "-c", FORK + code, bundle], timeout=60, check=False).returncode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_load_again(classifier_bundle):
    assert forked(ASKS, classifier_bundle) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_leave_the_block(classifier_bundle):
    assert forked(LEAVES, classifier_bundle) == 7
