"""GPU workers without a GPU: the thread of each run, and the owner of its memory."""

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encort.export.verification.cpu_attention import cpu_attention_session
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Layout, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import DeviceError, EncortError, ModelClosedError
from encort.runtime.cuda.cuda_graphs import CapturedSession
from encort.runtime.cuda.pinned_memory import Bytes
from encort.runtime.cuda.workers import GpuWorkers
from encort.runtime.engine.future import Future


class FakeSession:
    """Writes down the thread and the tokens of each run; `may_finish` holds runs back while it is clear."""

    def __init__(self, number: int) -> None:
        self.number, self.opened_by = number, threading.current_thread()
        self.runs: list[tuple[threading.Thread, int]] = []
        self.may_finish, self.running = threading.Event(), 0
        self.may_finish.set()

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        self.running += 1
        assert self.running == 1  # never two runs at a time
        self.runs.append((threading.current_thread(), len(inputs["input_ids"])))
        assert self.may_finish.wait(10)
        self.running -= 1
        if inputs["input_ids"][0] == 99:
            raise EncortError("ONNX Runtime failed: CUDA failure 2: out of memory")
        bounds = inputs["cu_seqlens"]
        sums = np.add.reduceat(inputs["input_ids"], bounds[:-1]).astype(np.float32)[:, None]
        for name, array in outputs.items():
            array[...] = {"sums": sums, "tokens": inputs["input_ids"][:, None]}[name]


Sessions = dict[int, FakeSession]
MakeWorkers = Callable[[int], tuple[GpuWorkers, Sessions]]


@pytest.fixture
def make_workers(fake_variant: Variant) -> Iterator[MakeWorkers]:
    """`make_workers(count)` returns workers, and their fake sessions by device number."""
    outputs = {"sums": ["batch", "1"], "tokens": ["tokens", "1"]}
    inputs = {"input_ids": ["tokens"], "cu_seqlens": ["bounds"], "token_offset": ["batch", "sequence"]}
    variant = dataclasses.replace(fake_variant, layout=Layout.PACKED, inputs=inputs, outputs=outputs)
    all_workers: list[GpuWorkers] = []

    def make(count: int) -> tuple[GpuWorkers, Sessions]:
        sessions: Sessions = {}

        def open_session(number: int) -> FakeSession:
            sessions[number] = FakeSession(number)
            return sessions[number]

        all_workers.append(GpuWorkers(variant, open_session, range(count)))
        return all_workers[-1], sessions

    yield make
    for workers in all_workers:
        workers.close()


def rows(*texts: Sequence[int]) -> dict[str, Int64Array]:
    """Return padded inputs of texts that are given as ids."""
    longest = max(map(len, texts))
    ids = np.array([[*text, *[0] * (longest - len(text))] for text in texts], np.int64)
    mask = np.array([[1] * len(text) + [0] * (longest - len(text)) for text in texts], np.int64)
    return {"input_ids": ids, "attention_mask": mask}


def test_results_by_token_come_back_padded(make_workers: MakeWorkers) -> None:
    workers, _ = make_workers(1)
    sums, tokens = workers.run(["sums", "tokens"], rows([1, 2, 3], [4], [5, 6]))
    assert sums.tolist() == [[6], [4], [11]]
    assert tokens[:, :, 0].tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]


def test_only_one_thread_uses_a_device(make_workers: MakeWorkers) -> None:
    workers, sessions = make_workers(1)
    threads = [threading.Thread(target=workers.run, args=(["sums"], rows([number]))) for number in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (session,) = sessions.values()
    assert len(session.runs) == 19
    assert {thread for thread, _ in session.runs} == {session.opened_by}
    assert session.opened_by not in (threading.current_thread(), *threads)


def test_a_run_goes_to_the_device_with_the_fewest_pending_runs(make_workers: MakeWorkers) -> None:
    workers, sessions = make_workers(2)
    sessions[0].may_finish.clear()
    busy = threading.Thread(target=workers.run, args=(["sums"], rows([1])))
    busy.start()
    while not sessions[0].runs:
        time.sleep(0.001)
    for _ in range(3):
        workers.run(["sums"], rows([2]))
    assert [len(session.runs) for session in sessions.values()] == [1, 3]
    sessions[0].may_finish.set()
    busy.join()


def test_results_stay_valid_when_the_next_run_takes_their_buffer(make_workers: MakeWorkers) -> None:
    workers, _ = make_workers(1)
    names = ["sums", "tokens"]
    first = workers.run(names, rows([1, 2, 3]))
    second = workers.run(names, rows([4, 5, 6]))
    assert [array.ravel().tolist() for array in (*first, *second)] == [[6], [1, 2, 3], [15], [4, 5, 6]]


def test_concurrent_runs_do_not_share_host_memory(make_workers: MakeWorkers) -> None:
    workers, sessions = make_workers(1)
    worker = workers.workers[0]
    allocated_by: list[threading.Thread] = []

    def allocate(size: int) -> Bytes:
        allocated_by.append(threading.current_thread())
        return np.empty(size, np.uint8)

    worker._buffers._allocate = allocate
    for _ in range(3):
        workers.run(["sums"], rows([1, 2]))
    assert allocated_by == [sessions[0].opened_by]
    sessions[0].may_finish.clear()
    results: dict[int, FloatArray] = {}

    def run(number: int) -> None:
        results[number] = workers.run(["sums"], rows([number, 1]))[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    sessions[0].may_finish.set()
    for thread in threads:
        thread.join()
    assert {number: array.item() for number, array in results.items()} == {number: number + 1 for number in range(5)}
    assert len(worker._buffers._free) == len(allocated_by)


def test_an_interrupted_run_keeps_its_buffer_to_itself(
    make_workers: MakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, sessions = make_workers(1)
    workers.run(["sums"], rows([1] * 250))
    sessions[0].may_finish.clear()
    monkeypatch.setattr(Future, "result", interrupted_once(Future.result))
    with pytest.raises(KeyboardInterrupt):
        workers.run(["sums"], rows([7] * 20))
    with ThreadPoolExecutor(1) as callers:
        second = callers.submit(workers.run, ["sums"], rows([1] * 200))
        while not workers.workers[0]._thread._calls.qsize():
            time.sleep(0.001)  # until the second run has filled its buffer; the device is still busy with the first
        sessions[0].may_finish.set()
        assert second.result(10)[0].item() == 200


def interrupted_once(result: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Future.result` as if the user had pressed Ctrl-C during its first call."""
    calls: list[Future[Any]] = []

    def wait(self: Future[Any], timeout: float | None = None) -> Any:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return result(self, timeout)

    return wait


def test_an_error_reaches_the_caller_and_the_device_goes_on(make_workers: MakeWorkers) -> None:
    workers, _ = make_workers(1)
    with pytest.raises(DeviceError, match="GPU 0 has no memory for a run of 1 tokens: free some"):
        workers.run(["sums"], rows([99]))
    assert workers.run(["sums"], rows([1]))[0].tolist() == [[1]]


def test_a_device_that_cannot_be_opened_leaves_no_thread(fake_variant: Variant) -> None:
    def refuse(number: int) -> FakeSession:
        raise DeviceError(f"no device {number}")

    before = threading.active_count()
    with pytest.raises(DeviceError, match="no device 3"):
        GpuWorkers(fake_variant, refuse, [3])
    assert threading.active_count() == before


def test_closing_releases_the_session(make_workers: MakeWorkers) -> None:
    workers, sessions = make_workers(1)
    session = weakref.ref(sessions.pop(0))
    workers.close()
    assert session() is None
    with pytest.raises(ModelClosedError):
        workers.run(["sums"], rows([1]))


def test_warm_up_runs_the_longest_text_and_the_largest_run_on_each_device(make_workers: MakeWorkers) -> None:
    workers, sessions = make_workers(2)
    workers.warm_up(7)
    assert [[tokens for _, tokens in session.runs] for session in sessions.values()] == [[7, 9368], [7, 9368]]


@pytest.fixture
def capturing(cuda_bundle: Path) -> Iterator[GpuWorkers]:
    """A worker that captures its graphs on the CPU."""
    bundle = Bundle.open(cuda_bundle)
    variant = next(variant for variant in bundle.manifest.variants if variant.name == "cuda-fp32")

    def open_session(number: int) -> CapturedSession:
        session = cpu_attention_session(bundle, variant)
        return CapturedSession(session, variant, max_length=64, device="cpu", number=number)

    workers = GpuWorkers(variant, open_session, [0])
    yield workers
    workers.close()


def test_captured_graphs_return_what_was_returned_before(capturing: GpuWorkers) -> None:
    texts = rows([2, 9, 8, 3], [2, 7, 3])
    texts["token_type_ids"] = 0 * texts["input_ids"]
    before = capturing.run(["logits", "last_hidden_state"], texts)
    capturing.warm_up(64)
    for result, expected in zip(capturing.run(["logits", "last_hidden_state"], texts), before, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("error 900", r"GPU 0 captured no graphs: warm up before .*load .* again \(error 900\)"),
        ("CUDA failure 2: out of memory", "GPU 0 has no memory for captured graphs: free some"),
    ],
)
def test_an_error_of_a_capture_says_what_to_do(
    capturing: GpuWorkers, monkeypatch: pytest.MonkeyPatch, error: str, message: str
) -> None:
    def fail(_: CapturedSession) -> None:
        raise EncortError(error)

    monkeypatch.setattr(CapturedSession, "capture", fail)
    with pytest.raises(DeviceError, match=message):
        capturing.warm_up(64)
