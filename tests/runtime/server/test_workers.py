"""Several processes behind one address."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from encort.runtime.engine.stats import BOUNDS, Histogram, Stats
from encort.runtime.server.operations.drift import DriftTotals, add_totals
from encort.runtime.server.operations.shared import SharedFolder, SummedStats
from tests.runtime.server.server_process import START_S, started
from tests.runtime.server.test_operations import metrics

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no such signals")


def ask(address: str) -> int:
    """Send a request over a connection of its own."""
    return httpx.post(f"{address}/embed", json={"inputs": "hello"}).status_code


def test_workers_are_counted_replaced_and_ended_together(encoder_bundle: Path) -> None:
    with started(encoder_bundle, options=["--workers", "2"]) as (process, address):
        assert [ask(address) for _ in range(12)] == [200] * 12
        values = metrics(httpx.get(f"{address}/metrics").text)
        assert values["encort_requests_total", "m", "/embed", "200"] == 12
        assert values["encort_requests_in_progress",] == 1
        time.sleep(1.5)  # until both have written their stats
        values = metrics(httpx.get(f"{address}/metrics").text)
        assert values["encort_texts_total", "m"] + values["encort_shared_total", "m"] == 12
        (victim, *_) = children(process.pid)
        os.kill(victim, signal.SIGKILL)
        assert process.stderr is not None
        assert f"worker {victim} ended with -9" in process.stderr.readline()
        assert [ask(address) for _ in range(4)] == [200] * 4
        assert metrics(httpx.get(f"{address}/metrics").text)["encort_requests_total", "m", "/embed", "200"] == 16
        process.terminate()
        assert process.wait(START_S) == 0
        assert "Traceback" not in process.stderr.read()


def children(parent: int) -> list[int]:
    """Return the processes of the server that serve."""
    tasks = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in tasks if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def stats(texts: int, queued: int) -> Stats:
    times = Histogram(bounds=BOUNDS, counts=[texts] + [0] * len(BOUNDS), sum=float(texts))
    counts = dict.fromkeys(("tokens", "padding", "truncated", "runs", "failures", "overloads", "expired", "shared"), 0)
    return Stats(
        texts=texts,
        queued_tokens=queued,
        queue_seconds=times,
        run_seconds=times,
        tokenize_seconds=times,
        **counts,
    )


class Fake:
    def __init__(self, texts: int, queued: int = 0) -> None:
        self._stats = stats(texts, queued)

    def stats(self) -> Stats:
        return self._stats


def test_stats_are_summed_over_processes_dead_ones_and_models_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedFolder(tmp_path)
    for process, texts in ((1, 10), (2, 100)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda process=process: process)
            shared.save_stats({"m": stats(texts, queued=texts)})
    shared.mark_dead(2)
    models = {"m": Fake(1, queued=1)}
    summed = SummedStats(models, shared)
    assert (summed["m"].stats().texts, summed["m"].stats().queued_tokens) == (111, 11)
    models["m"] = Fake(5, queued=2)
    total = summed["m"].stats()
    assert (total.texts, total.queued_tokens) == (116, 12)
    assert total.queue_seconds.count == 116
    assert summed["m"].stats().texts == 116


def test_drift_is_summed_over_the_processes_that_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedFolder(tmp_path)
    totals: dict[str, Any] = {"compared": 2, "skipped": 1, "flips": 1, "cosines": 2, "seconds": 0.5}
    for process, cosine in ((1, 0.5), (2, 0.75), (3, 0.25)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda process=process: process)
            of_process = DriftTotals(**totals, cosine_sum=2 * cosine, min_cosine=cosine)
            shared.save_drift({"m": of_process, "n": DriftTotals()})
    shared.mark_dead(3)
    shared.save_drift({"m": DriftTotals(compared=7)})  # this process counts itself
    total = add_totals(shared.drift_of_others("m"))
    assert total.summary() == {
        "compared": 4,
        "skipped": 2,
        "flips": 2,
        "min_cosine": 0.5,
        "mean_cosine": 0.625,
        "seconds": 1.0,
    }
    assert add_totals(shared.drift_of_others("n")) == DriftTotals()
    assert list(shared.drift_of_others("x")) == []


def test_every_process_tells_the_drift_of_all(encoder_checkpoint: Path, tmp_path: Path) -> None:
    from encort.export.exporter import export_bundle

    folder = export_bundle(encoder_checkpoint, tmp_path / "b", variants=["fp32", "int8"]).folder
    options = ["--workers", "2", "--precision", "int8", "--drift-share", "1", "--drift-most-time", "1"]
    with started(folder, options=options) as (_, address):
        assert [ask(address) for _ in range(12)] == [200] * 12
        time.sleep(2.5)  # until both have written their totals
        for _ in range(6):
            drift = httpx.get(f"{address}/info").json()["models"][0]["drift"]
            assert drift["compared"] + drift["skipped"] == 12
            counted = metrics(httpx.get(f"{address}/metrics").text)["encort_drift_texts_total", "m"]
            assert drift["compared"] == counted


def test_bundles_are_told_to_all_processes(tmp_path: Path) -> None:
    assert SharedFolder(tmp_path).bundles() == {}
    SharedFolder(tmp_path).save_bundles({"m": "new.bundle"})
    assert SharedFolder(tmp_path).bundles() == {"m": "new.bundle"}


def test_a_replaced_bundle_serves_in_all_processes(
    encoder_bundle: Path, classifier_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCORT_ADMIN_KEYS", "admin")
    with started(encoder_bundle, options=["--workers", "2"]) as (_, address):
        answer = httpx.post(
            f"{address}/admin/models/m",
            json={"bundle": str(classifier_bundle)},
            headers={"authorization": "Bearer admin"},
            timeout=START_S,
        )
        assert answer.status_code == 200
        end = time.monotonic() + START_S
        while not all(ask_classifier(address) == 200 for _ in range(20)):
            assert time.monotonic() < end


def ask_classifier(address: str) -> int:
    return httpx.post(f"{address}/predict", json={"inputs": "hello"}).status_code
