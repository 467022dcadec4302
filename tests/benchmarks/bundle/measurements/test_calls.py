"""Latency of calls, with a system that takes a known time by a clock of its own."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from encort.benchmarks.bundle.inputs import TextCutter
from encort.benchmarks.bundle.measurements import calls
from encort.benchmarks.bundle.measurements.calls import measure_calls
from encort.runtime.text.token_batch import Text

TOKEN_S = 0.001


class Words:
    """Cuts texts whose tokens are their words."""

    limit = 128

    def cut(self, tokens: int) -> str:
        return " ".join(["a"] * tokens)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def measure(seconds: float, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[tuple[int, int], int], float]:
    """Return the number of calls by shape, and the seconds that all of them took."""
    now = 0.0

    def run(texts: Sequence[Text]) -> float:
        nonlocal now
        taken = TOKEN_S * sum(len(str(text).split()) for text in texts)
        now += taken
        return taken

    monkeypatch.setattr(calls, "TEXTS_PER_CALL", (1, 8))
    monkeypatch.setattr(calls, "elapsed", lambda run, call: run(call))
    monkeypatch.setattr(calls, "time", SimpleNamespace(perf_counter=lambda: now))
    shown: list[str] = []
    latencies = measure_calls(
        {"slow": run}, cast(TextCutter, Words()), token_seconds={"slow": TOKEN_S}, seconds=seconds, show=shown.append
    )
    assert sorted(shown) == sorted(f"slow, {latency.texts} x {latency.tokens} tokens" for latency in latencies)
    assert all(latency.p50_ms == pytest.approx(latency.texts * latency.tokens) for latency in latencies)
    return {(latency.texts, latency.tokens): latency.calls for latency in latencies}, now


def test_shapes_have_as_many_calls_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, taken = measure(8.0, monkeypatch)
    assert list(counts) == [(1, 8), (1, 32), (1, 128), (8, 8), (8, 32), (8, 128)]
    assert calls.MAX_CALLS > counts[1, 8] > counts[1, 32] > counts[1, 128] > counts[8, 128] >= 1
    assert 6 < taken < 8.5


def test_every_shape_is_called_once_if_there_is_time_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, taken = measure(1.6, monkeypatch)  # one call of each takes 1.5 s
    assert len(counts) == 6
    assert counts[8, 128] == 1
    assert taken < 1.7


def test_shapes_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, taken = measure(1.0, monkeypatch)
    assert list(counts) == [(1, 8), (1, 32), (1, 128), (8, 8), (8, 32)]
    assert taken < 1.3
