"""The model of an adapter opens when it is used, serves all callers with one queue, and closes."""

import asyncio
import os
import pickle
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.errors import BundleFileMissingError, HubError, InputError, InputTypeError, ModelClosedError
from encort.integrations.embedder import Embedder, PromptOption, saved_prompt
from encort.integrations.lazy_model import LazyModel, LoadKeywords
from encort.runtime.options import LoadOptions
from tests.runtime.fakes import hold_runs
from tests.runtime.forking import error_in_child, leave

TEXTS = [f"card {number}" for number in range(100)]


def opened(lazy: LazyModel) -> encort.Model:
    assert lazy._opened is not None
    return lazy._opened.model


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    lazy = LazyModel(tmp_path / "not.there", {"threads": 1})
    with pytest.raises(BundleFileMissingError, match="encort export"):
        lazy.open()


def test_a_name_of_the_hub_is_asked_from_the_hub() -> None:
    pytest.importorskip("huggingface_hub", reason="needs huggingface-hub")
    lazy = LazyModel("hf://org/name@v1", {})
    with pytest.raises(HubError):  # the tests are offline
        lazy.open()
    with pytest.raises(HubError):
        lazy.manifest  # noqa: B018


def test_the_manifest_is_read_without_opening_the_model(bundle: Path) -> None:
    lazy = LazyModel(bundle, {})
    assert lazy.manifest.embedding is not None
    assert lazy._opened is None


def test_a_closed_model_is_released_and_opens_again(bundle: Path) -> None:
    lazy = LazyModel(bundle, {"threads": 1})
    first = lazy.open()
    assert lazy.open() is first
    lazy.close()
    lazy.close()
    with pytest.raises(ModelClosedError):
        first.embed(["card"])
    assert lazy.open().embed(["card"]).shape[0] == 1
    lazy.close()


def test_a_model_of_the_caller_stays_open(bundle: Path) -> None:
    with encort.load(bundle, threads=1) as model:
        lazy = LazyModel(model, {})
        service = lazy.service()
        lazy.close()
        with pytest.raises(ModelClosedError):
            service.embed("card")
        assert len(model.embed(["card"])) == 1
        assert lazy.service().embed("card").ndim == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("is_given", [False, True], ids=["opened", "given"])
def test_a_forked_child_opens_the_model_again(bundle: Path, *, is_given: bool) -> None:
    given = encort.load(bundle, threads=1)
    lazy = LazyModel(given, {}) if is_given else LazyModel(bundle, {"threads": 1})
    embedder = Embedder(model=lazy)
    expected = embedder.embed_one("card", "query")
    calls = [
        lambda: asyncio.run(embedder.embed_one_async("card", "query")),
        lambda: embedder.embed_one("card", "query"),
        lambda: embedder.embed(["card"], "query")[0],
    ]

    def embed_again() -> None:
        for call in calls:
            np.testing.assert_allclose(call(), expected, atol=1e-6)
            lazy.close()

    assert error_in_child(embed_again, end_child=leave) == ""
    assert error_in_child(lazy.close, end_child=leave) == ""
    np.testing.assert_allclose(embedder.embed_one("card", "query"), expected, atol=1e-6)
    lazy.close()
    given.close()


def test_a_pickled_model_has_folder_and_options_of_the_first(bundle: Path) -> None:
    with encort.load(bundle, threads=1, device="cpu") as model:
        copy: LazyModel = pickle.loads(pickle.dumps(LazyModel(model, {})))
    assert (copy.bundle, copy.options) == (str(bundle), {"threads": 1, "device": "cpu"})
    assert copy._opened is None


def test_options_are_plain_and_without_defaults() -> None:
    lazy = LazyModel("a.bundle", {"precision": encort.Precision.INT8, "device": ("cuda:0",), "spinning": False})
    assert lazy.options == {"precision": "int8", "device": ["cuda:0"]}
    assert type(lazy.options["precision"]) is str


def test_the_keywords_are_the_options_of_load() -> None:
    assert set(LoadKeywords.__annotations__) == {field.name for field in fields(LoadOptions)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "x"}, "give the folder of a bundle as the first argument"),
        ({"batch_size": 32}, "plans the runs of all callers by itself"),
        ({"normalize_embeddings": True}, "encort export --normalize"),
        ({"trust_remote_code": True}, "no code that could run"),
        ({"query_instruction": "query: "}, "query_prompt=.*encort.Prompt"),
        ({"thread": 2}, "it passes these on to encort.load: device, precision, threads"),
    ],
)
def test_an_option_that_encort_does_not_have_says_what_to_do(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=f"there is no option {next(iter(options))}: .*{message}"):
        LazyModel("a.bundle", options)


def test_options_are_checked_at_once() -> None:
    with pytest.raises(InputError, match="precision must be one of"):
        LazyModel("a.bundle", {"precision": "int7"})


def test_options_do_not_go_with_a_loaded_model(model: encort.Model) -> None:
    with pytest.raises(InputError, match="give precision to encort"):
        LazyModel(model, {"precision": "int8"})


def test_a_bundle_that_is_no_path_is_refused() -> None:
    with pytest.raises(InputTypeError, match="expected the folder of a bundle"):
        LazyModel(7, {})  # type: ignore[arg-type]


def test_100_awaits_at_once_share_runs(bundle: Path) -> None:
    lazy = LazyModel(bundle, {"threads": 1})
    embedder = Embedder(model=lazy)

    async def embed_all() -> list[Any]:
        await lazy.open_async()
        with hold_runs(opened(lazy)) as (started, release):
            calls = [asyncio.create_task(embedder.embed_one_async(text, "query")) for text in TEXTS]
            await asyncio.to_thread(started.wait, 10)
            await asyncio.sleep(0.2)  # meanwhile all others are queued
            release.set()
            return await asyncio.gather(*calls)

    embeddings = asyncio.run(embed_all())
    stats = opened(lazy).stats()
    np.testing.assert_allclose(embeddings, embedder.embed(TEXTS, "query"), atol=1e-6)
    lazy.close()
    assert stats.texts == 100
    assert stats.runs < 40


def test_threads_and_several_event_loops_use_one_queue(bundle: Path) -> None:
    lazy = LazyModel(bundle, {"threads": 1})
    embedder = Embedder(model=lazy)

    def embed_in_a_loop(text: str) -> Any:
        return asyncio.run(embedder.embed_one_async(text, "document"))

    with ThreadPoolExecutor(16) as threads:
        from_loops = list(threads.map(embed_in_a_loop, TEXTS[:50]))
        from_threads = list(threads.map(lambda text: embedder.embed_one(text, "document"), TEXTS[50:]))
    np.testing.assert_allclose(from_loops + from_threads, embedder.embed(TEXTS, "document"), atol=1e-6)
    lazy.close()


def test_closing_finishes_the_texts_that_wait(bundle: Path) -> None:
    lazy = LazyModel(bundle, {"threads": 1})
    embedder = Embedder(model=lazy)
    with ThreadPoolExecutor(3) as threads, hold_runs(lazy.open()) as (started, release):
        calls = [threads.submit(embedder.embed_one, "card", "query")]
        assert started.wait(10)
        calls.append(threads.submit(embedder.embed_one, "my card", "query"))
        while not lazy.open().stats().queued_tokens:
            time.sleep(0.001)
        closing = threads.submit(lazy.close)
        release.set()
        assert [call.result(10).ndim for call in calls] == [1, 1]
        closing.result(10)


@pytest.mark.parametrize(
    ("role", "names", "expected"),
    [
        ("query", ["query", "document"], "query"),
        ("query", ["document"], ""),
        ("document", ["corpus", "passage", "document"], "document"),
        ("document", ["corpus", "passage"], "passage"),
        ("document", ["corpus"], "corpus"),
        ("document", ["query"], ""),
    ],
)
def test_the_prompt_of_a_role_is_that_of_sentence_transformers(
    role: Any, names: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, model: encort.Model
) -> None:
    monkeypatch.setitem(vars(model.manifest.embedding), "prompts", {name: name for name in names})
    assert Embedder(model=LazyModel(model, {}))._prompt(role) == expected


@pytest.mark.parametrize(
    ("option", "prompt"),
    [
        ("passage", "passage"),
        ("", ""),
        (encort.Prompt("change: "), encort.Prompt("change: ")),
        (saved_prompt(encort.Prompt("change: ")), encort.Prompt("change: ")),
        (saved_prompt("passage"), "passage"),
    ],
)
def test_a_prompt_of_the_caller_is_used(model: encort.Model, option: PromptOption, prompt: str | encort.Prompt) -> None:
    embedder = Embedder(model=LazyModel(model, {}), query_prompt=option, document_prompt=option)
    expected = model.embed(["card"], prompt=prompt)
    np.testing.assert_allclose(embedder.embed(["card"], "document"), expected, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_one("card", "query"), expected[0], atol=1e-6)
