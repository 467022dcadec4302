"""A future ends once: with a result, an error, or a cancel; callbacks are called once, and the waiting caller wakes."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from encort.runtime.engine.future import Future
from tests.runtime.interrupts import finishes, interrupted_calls


def test_a_result_wakes_the_thread_that_waits() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [3]).start()
    assert future.result(10) == 3
    assert future.result() == 3, "a result can be asked for again"
    assert future.exception() is None


def test_an_error_is_raised_to_the_caller() -> None:
    future: Future[int] = Future()
    error = ValueError("broken")
    future.set_exception(error)
    with pytest.raises(ValueError, match="broken"):
        future.result()
    assert future.exception() is error


def test_waiting_ends_after_the_timeout() -> None:
    future: Future[int] = Future()
    for wait in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            wait(0.01)
    assert not future.done()


@pytest.mark.parametrize("first", ["result", "error", "cancel"])
def test_the_first_end_stays(first: str) -> None:
    future: Future[str] = Future()
    ends = {
        "result": lambda: future.set_result("result"),
        "error": lambda: future.set_exception(ValueError("error")),
        "cancel": future.cancel,
    }
    ends[first]()
    assert future.done()
    expected = future.exception()
    for end in ends.values():
        end()
    assert future.exception() is expected
    assert {"result": type(None), "error": ValueError, "cancel": CancelledError}[first] is type(expected)


def test_cancel_says_whether_it_cancelled() -> None:
    future: Future[int] = Future()
    assert future.cancel()
    assert not future.cancel()
    with pytest.raises(CancelledError):
        future.result()


def test_callbacks_are_called_once_before_and_after_the_end() -> None:
    future: Future[int] = Future()
    called: list[str] = []
    future.add_done_callback(lambda: called.append("before"))
    assert called == []
    future.set_result(1)
    future.add_done_callback(lambda: called.append("after"))
    future.set_result(2)
    assert called == ["before", "after"]


@pytest.mark.parametrize("call", ["result", "exception", "cancel"])
def test_another_thread_can_end_a_future_after_an_interrupt_of_its_caller(call: str) -> None:
    futures: list[Future[int]] = []

    def prepare() -> Callable[[], object]:
        future: Future[int] = Future()
        futures.append(future)
        calls = {"result": lambda: future.result(0.0), "exception": lambda: future.exception(0.0)}

        def make_call() -> None:
            with contextlib.suppress(TimeoutError):
                calls.get(call, future.cancel)()

        return make_call

    stuck = [line for line in interrupted_calls(prepare) if not finishes(lambda: futures[-1].set_result(1))]
    assert len(futures) > 4, "too few lines: the call was not traced"
    assert stuck == []
    assert all(future.done() for future in futures[:-1])
