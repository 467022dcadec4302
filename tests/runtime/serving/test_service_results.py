"""A service gives the results of the model, from threads and from asyncio."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from tests.conftest import MakeCheckpoint
from tests.runtime.serving.helpers import LONG, PAIRS, TEXTS, assert_same

CALLS: list[tuple[str, Sequence[Any], dict[str, Any]]] = [
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
    ("answer", PAIRS, {"n_best": 4, "head": "answers", "null_threshold": 100}),
    ("answer", PAIRS, {"n_best": 2, "overflow": "truncate"}),
    ("predict", TEXTS, {}),
]
all_calls = pytest.mark.parametrize(("task", "texts", "options"), CALLS)


@all_calls
def test_a_service_gives_the_results_of_the_model(
    all_tasks: encort.Model, task: str, texts: Sequence[Any], options: dict[str, Any]
) -> None:
    expected = getattr(all_tasks, task)(texts, **options)
    with all_tasks.serving() as service, ThreadPoolExecutor(len(texts)) as pool:
        results = list(pool.map(lambda text: getattr(service, task)(text, **options), texts))
    for result, other in zip(results, expected, strict=True):
        assert_same(result, float(other) if task == "score" else other)


@all_calls
def test_an_async_service_gives_the_results_of_the_model(
    all_tasks: encort.Model, task: str, texts: Sequence[Any], options: dict[str, Any]
) -> None:
    expected = getattr(all_tasks, task)(texts, **options)

    async def call_all() -> list[Any]:
        async with all_tasks.serving() as service:
            return await asyncio.gather(*(getattr(service, task)(text, **options) for text in texts))

    for result, other in zip(asyncio.run(call_all()), expected, strict=True):
        assert_same(result, float(other) if task == "score" else other)


def test_results_have_their_types_and_shapes(all_tasks: encort.Model) -> None:
    with all_tasks.serving() as service:
        embedding, score = service.embed("hello"), service.score("hello")
        tokens, answers = service.embed_tokens("hello"), service.answer(PAIRS[0])
    assert (embedding.shape, embedding.dtype, tokens.shape, type(score)) == ((40,), np.float32, (3, 40), float)
    assert (type(answers), answers.tokens, answers.truncated) == (encort.Answers, 12, False)


@pytest.mark.parametrize("task", ["tag", "answer", "embed"])
def test_a_long_context_is_read_in_windows(all_tasks: encort.Model, task: str) -> None:
    text: Any = PAIRS[3] if task == "answer" else PAIRS[3][1]
    before = all_tasks.stats().texts
    with all_tasks.serving() as service:
        result = getattr(service, task)(text, overflow="window")
    windows = len(all_tasks.tokenize([text], overflow="window"))
    assert windows > 3
    assert 1 <= all_tasks.stats().texts - before <= windows
    assert_same(result, getattr(all_tasks, task)([text], overflow="window")[0])


def test_predict_without_heads_is_embed(encoder: encort.Model) -> None:
    with encoder.serving() as service:
        assert_same(service.predict("my card is lost"), encoder.embed(["my card is lost"])[0])


@pytest.fixture(scope="module")
def regression_bundle(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from encort.export.exporter import export_bundle

    folder = tmp_path_factory.mktemp("regression") / "bundle"
    return export_bundle(make_checkpoint(labels=["stars"]), folder, variants=["fp32"]).folder


def test_predict_of_a_regression_is_a_float(regression_bundle: Path) -> None:
    with encort.load(regression_bundle, threads=1) as model:
        expected = float(model.score(["hello"])[0])

        async def predict() -> Any:
            async with model.serving() as service:
                return await service.predict("hello")

        with model.serving() as service:
            results = [service.predict("hello"), asyncio.run(predict())]
    assert [type(score) for score in results] == [float, float]
    assert results == pytest.approx([expected, expected], abs=1e-6)


def test_100_000_characters_pass_through_an_async_service(all_tasks: encort.Model) -> None:
    text = LONG[:100_000]
    assert len(text) == 100_000

    async def call_all() -> Any:
        async with all_tasks.serving() as service:
            return await asyncio.gather(
                service.classify(text),
                service.embed((text, "hello")),
                service.embed(text[:10_000], overflow="window"),
                service.embed("hello"),
            )

    truncated, pair, windows, short = asyncio.run(call_all())
    assert (truncated.tokens, truncated.truncated) == (64, True)
    assert_same(truncated, all_tasks.classify([text])[0])
    assert_same(pair, all_tasks.embed([(text, "hello")])[0])
    assert_same(windows, all_tasks.embed([text[:10_000]], overflow="window")[0])
    assert_same(short, all_tasks.embed(["hello"])[0])
