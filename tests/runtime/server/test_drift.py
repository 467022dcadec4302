"""Live requests that run again in fp32."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.server.operations.drift import MOST_TEXTS, Drift, DriftShadow, drift
from encort.runtime.serving.async_service import CallResults, SpecService
from encort.runtime.tasks.results import Classification, Matches, Span
from encort.runtime.text.token_batch import TokenBatch

TEXTS = ["hello", "my card is lost"]


def classification(label: str) -> Classification:
    return Classification(label=label, score=0.5, scores={label: 0.5}, tokens=3, truncated=False)


def spans(*ends: int) -> Matches[Span]:
    return Matches([Span(label="A", score=0.5, start=0, end=end, text="") for end in ends], tokens=3, truncated=False)


@pytest.mark.parametrize(
    ("item", "expected", "found"),
    [
        (classification("a"), classification("a"), Drift(flipped=False)),
        (classification("a"), classification("b"), Drift(flipped=True)),
        (spans(1, 2), spans(1, 2), Drift(flipped=False)),
        (spans(1, 2), spans(1), Drift(flipped=True)),
        (np.array([1.0, 0.0]), np.array([0.0, 1.0]), Drift(cosine=0.0)),
        (np.float32(1.0), np.float32(1.5), Drift(difference=0.5)),
        ("of an unknown kind", "", Drift()),
    ],
)
def test_results_differ_by_what_they_have(item: Any, expected: Any, found: Drift) -> None:
    assert drift(item, expected) == found


def watched(model: encort.Model, requests: Sequence[Sequence[str]], **options: float) -> tuple[list[Drift], Any]:
    """Offer requests one after the other, with results that differ from the model's in their first value."""
    found: list[Drift] = []

    async def offer() -> Any:
        async with model.serving() as service:
            assert isinstance(service, SpecService)
            shadow = DriftShadow(service, **{"share": 1.0, "most_time": 1.0, **options}, observe=found.append)
            for texts in requests:
                vectors = model.embed(list(texts))
                vectors[:, 0] += 1
                shadow.offer(service.tasks.embed(), list(texts), list(vectors), None)
                await shadow.close()
            return shadow.summary()

    return found, asyncio.run(offer())


def test_a_sampled_request_is_compared_with_the_reference(encoder: encort.Model) -> None:
    found, summary = watched(encoder, [TEXTS])
    expected = encoder.embed(TEXTS)
    changed = expected + np.eye(1, expected.shape[1], dtype=np.float32)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(changed, axis=1)
    np.testing.assert_allclose([item.cosine for item in found], (expected * changed).sum(axis=1) / norms, rtol=1e-4)
    assert summary["compared"] == 2
    assert summary["min_cosine"] == min(item.cosine or 0 for item in found)


def test_few_texts_of_a_request_run_again(encoder: encort.Model) -> None:
    found, _ = watched(encoder, [[f"text {number}" for number in range(3 * MOST_TEXTS)]])
    assert len(found) == MOST_TEXTS


def test_no_request_is_compared_without_a_share(encoder: encort.Model) -> None:
    assert watched(encoder, [TEXTS], share=0.0)[0] == []


def test_the_time_of_comparisons_is_bounded(encoder: encort.Model) -> None:
    found, summary = watched(encoder, [TEXTS] * 5, most_time=1e-9)
    assert (len(found), summary["skipped"]) == (2, 4)


def test_a_request_is_skipped_while_another_one_is_compared() -> None:
    class Slow:
        async def run(self, *_: Any, **__: Any) -> CallResults[Any]:
            await asyncio.sleep(0.05)
            return CallResults(items=[1.0], batch=TokenBatch.__new__(TokenBatch), times=None)  # type: ignore[arg-type]

    async def offer() -> Any:
        shadow = DriftShadow(Slow(), share=1.0, most_time=1.0, observe=lambda _: None)
        for _ in range(3):
            shadow.offer(None, ["a"], [1.0], None)  # type: ignore[arg-type]
        await shadow.close()
        return shadow.summary()

    assert asyncio.run(offer())["skipped"] == 2
