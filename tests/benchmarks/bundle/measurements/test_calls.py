"""Latency of calls, with systems that take a known time."""

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from encort.benchmarks.bundle.inputs import TextCutter
from encort.benchmarks.bundle.measurements import calls
from encort.benchmarks.bundle.measurements.calls import measure_calls
from encort.runtime.text.token_batch import Text

TOKEN_S = 2e-4


class Words:
    """Cuts texts whose tokens are their words."""

    limit = 128

    def cut(self, tokens: int) -> str:
        return " ".join(["a"] * tokens)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def run(texts: Sequence[Text]) -> None:
    time.sleep(TOKEN_S * sum(len(str(text).split()) for text in texts))


def measure(seconds: float, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], int]:
    """Return the number of calls by shape."""
    monkeypatch.setattr(calls, "TEXTS_PER_CALL", (1, 8))
    shown: list[str] = []
    latencies = measure_calls(
        {"slow": run}, cast(TextCutter, Words()), token_seconds={"slow": TOKEN_S}, seconds=seconds, show=shown.append
    )
    assert sorted(shown) == sorted(f"slow, {latency.texts} x {latency.tokens} tokens" for latency in latencies)
    assert all(latency.p50_ms >= 1e3 * TOKEN_S * latency.texts * latency.tokens for latency in latencies)
    return {(latency.texts, latency.tokens): latency.calls for latency in latencies}


def test_shapes_have_as_many_calls_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.perf_counter()
    counts: Any = measure(0.9, monkeypatch)
    assert time.perf_counter() - start < 1.8
    assert list(counts) == [(1, 8), (1, 32), (1, 128), (8, 8), (8, 32), (8, 128)]
    assert counts[1, 8] > counts[1, 128] >= 1
    assert counts[8, 128] >= 1


def test_a_shape_that_cannot_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (8, 128) not in measure(0.1, monkeypatch)
