"""A failure of the tokenizers library is an error of encort, on every way to the tokenizer."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

import encort
from encort.runtime.common.errors import BundleError, InputError
from encort.runtime.engine.tokenizer_pool import TokenizerPool
from encort.runtime.text.tokenizer import Tokenizer
from tests.runtime.fakes import MakeEngine

BAD = "bad"
ONLY_BASE_EXCEPTION: Any = type("PanicException", (BaseException,), {})


def without_unknown_token() -> Tokenizer:
    """Return a tokenizer that fails on every word but `my` and `card`."""
    library = tokenizers.Tokenizer(models.WordLevel({"my": 0, "card": 1}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(library.to_str().encode(), max_length=16)


@pytest.fixture
def failing() -> Tokenizer:
    return without_unknown_token()


@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("text", [BAD, ("my", BAD), "my card " * 500 + BAD])
def test_a_text_on_which_the_tokenizer_fails_is_named(failing: Tokenizer, text: Any, *, all_cores: bool) -> None:
    with pytest.raises(InputError, match=r"text 7: the bundle's tokenizer fails .*Missing \[UNK\] token") as raised:
        failing(["my card", "card", text], first=5, overflow="window", all_cores=all_cores)
    assert type(raised.value) is InputError


@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("size", [1, 40])
def test_a_pool_names_the_text(failing: Tokenizer, make_engine: MakeEngine, size: int, *, all_cores: bool) -> None:
    pool = TokenizerPool(failing, make_engine(threads=2), return_offsets=False, reverse=False, all_cores=all_cores)
    with pytest.raises(InputError, match=f"text {size}: the bundle's tokenizer fails"):
        pool(["my card"] * size + [BAD])
    assert len(pool(["my card"] * size)) == size


@pytest.mark.parametrize("all_cores", [False, True])
def test_a_panic_of_the_library_is_an_error(*, all_cores: bool) -> None:
    library = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.FixedLength(0)  # a division by zero in Rust
    tokenize = Tokenizer(library.to_str().encode(), max_length=16)
    with pytest.raises(InputError, match="text 0: the bundle's tokenizer fails"):
        tokenize(["my", "card"], all_cores=all_cores)


def test_a_panic_while_a_tokenizer_is_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_: bytes) -> None:
        raise ONLY_BASE_EXCEPTION("index out of bounds")

    monkeypatch.setattr(tokenizers.Tokenizer, "from_buffer", panic)
    with pytest.raises(BundleError, match="is not a tokenizer"):
        Tokenizer(b"{}", max_length=16)


def test_too_few_threads_for_the_library_are_not_blamed_on_the_text(failing: Tokenizer) -> None:
    def panic(*_: Any, **__: Any) -> None:
        raise ONLY_BASE_EXCEPTION("The global thread pool has not been initialized: ThreadPoolBuildError")

    failing._backend.library = SimpleNamespace(encode_batch_fast=panic)
    with pytest.raises(InputError, match=r"too few threads .*TOKENIZERS_PARALLELISM=false"):
        failing(["my card"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_other_exceptions_pass(failing: Tokenizer, error: type[BaseException]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    failing._backend.library = type("Library", (), {"encode_batch": fail, "encode_batch_fast": fail})()
    with pytest.raises(error):
        failing(["my card"])


def break_tokenizer(model: encort.Model) -> None:
    """Give a model a tokenizer that fails on most words."""
    pool: Any = model._tokenizer
    pool._tokenizer = without_unknown_token()


@pytest.mark.parametrize("text", [BAD, "my card " * 2000 + BAD])
def test_callers_of_a_model_and_its_services_get_the_error(classifier_bundle: Path, text: str) -> None:
    async def embed() -> None:
        async with model.serving() as service:
            await service.embed(text, overflow="window")

    with encort.load(classifier_bundle, threads=2) as model:
        break_tokenizer(model)
        with pytest.raises(InputError, match="tokenizer fails"):
            model.embed([text], overflow="window")
        with pytest.raises(InputError, match="text 20: the bundle's tokenizer fails"):
            list(model.tokenize_stream(["my card"] * 20 + [text], overflow="window"))
        with model.serving() as service, pytest.raises(InputError, match="tokenizer fails"):
            service.embed(text, overflow="window")
        with pytest.raises(InputError, match="tokenizer fails"):
            asyncio.run(embed())
        assert model.embed(["my card"]).shape == (1, 40)
