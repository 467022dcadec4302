"""A pool with any number of threads returns the batch of the tokenizer alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError, ModelClosedError
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.tokenizer_pool import TokenizerPool
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.windows import Overflow
from tests.runtime.fakes import MakeEngine

LIMIT = 12
TEXTS: list[Text] = [
    "hello",
    "",
    "my card is lost",
    ("is it lost?", "my card"),
    "안녕하세요 😀",
    "card " * 30,
    ("pin?", "pin " * 40),
]
PAIRS: list[tuple[str, str]] = [(f"hello {number}", "my pin " * (number % 9)) for number in range(50)]
SIZES = [0, 1, 16, 17, 50]
all_sizes = pytest.mark.parametrize("size", SIZES)

MakePool = Callable[..., TokenizerPool]


@pytest.fixture(scope="module")
def tokenize(classifier_bundle: Path) -> Tokenizer:
    return Tokenizer((classifier_bundle / "tokenizer.json").read_bytes(), max_length=LIMIT)


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine(threads=3)


@pytest.fixture
def make_pool(tokenize: Tokenizer, engine: Engine) -> MakePool:
    """`make_pool(return_offsets=True, reverse=True, all_cores=True)` returns a pool over the engine's threads."""

    def make(*, return_offsets: bool = False, reverse: bool = False, all_cores: bool = False) -> TokenizerPool:
        return TokenizerPool(tokenize, engine, return_offsets=return_offsets, reverse=reverse, all_cores=all_cores)

    return make


def texts_of(size: int) -> list[Text]:
    """Return this many texts, with pairs and long texts among them."""
    return [TEXTS[number % len(TEXTS)] for number in range(size)]


def assert_same(batch: Any, expected: Any) -> None:
    """Compare every array, including those of offsets, windows and reversed pairs."""
    for field in dataclasses.fields(expected):
        one, other = getattr(batch, field.name), getattr(expected, field.name)
        if dataclasses.is_dataclass(other):
            assert_same(one, other)
        elif isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        elif field.name == "texts":
            assert list(one) == list(other)
        else:
            assert one == other


@all_sizes
@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("return_offsets", [False, True])
@pytest.mark.parametrize(("overflow", "stride"), [("truncate", None), ("window", None), ("window", 3)])
def test_a_batch_equals_the_batch_of_the_tokenizer(
    tokenize: Tokenizer,
    make_pool: MakePool,
    size: int,
    overflow: Overflow,
    stride: int | None,
    *,
    all_cores: bool,
    return_offsets: bool,
) -> None:
    batch = make_pool(return_offsets=return_offsets, all_cores=all_cores)(
        texts_of(size), overflow=overflow, stride=stride
    )
    assert_same(batch, tokenize(texts_of(size), overflow=overflow, stride=stride, return_offsets=return_offsets))
    assert (batch.windows is not None) == (overflow == "window" and size > 5)


@all_sizes
@pytest.mark.parametrize("all_cores", [False, True])
def test_reversed_pairs_equal_the_pairs_of_the_tokenizer(
    tokenize: Tokenizer, make_pool: MakePool, size: int, *, all_cores: bool
) -> None:
    batch = make_pool(reverse=True, all_cores=all_cores)(PAIRS[:size])
    assert_same(batch, tokenize(PAIRS[:size], reverse=True))
    assert batch.reversed is not None
    assert list(batch.reversed.texts) == [(second, first) for first, second in PAIRS[:size]]


@all_sizes
def test_overflow_error_accepts_texts_within_the_limit(tokenize: Tokenizer, make_pool: MakePool, size: int) -> None:
    fitting: list[Text] = [text if len(str(text)) < 30 else "hello" for text in texts_of(size)]
    assert_same(make_pool()(fitting, overflow="error"), tokenize(fitting, overflow="error"))


@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("place", [3, 20, 49])
def test_an_error_names_the_number_of_the_text(make_pool: MakePool, place: int, *, all_cores: bool) -> None:
    texts: list[Any] = ["hello"] * place + ["card " * 30] + ["hello"] * (49 - place)
    with pytest.raises(InputTooLongError, match=f"text {100 + place} has more than {LIMIT} tokens"):
        make_pool(all_cores=all_cores)(texts, overflow="error", first=100)
    with pytest.raises(InputTypeError, match=f"text {100 + place}: expected a str"):
        make_pool(all_cores=all_cores)([*texts[:place], None, *texts[place:]], first=100)


@pytest.mark.parametrize("chunk", [1, 7, 17, 100])
def test_a_stream_yields_one_batch_per_chunk_in_order(tokenize: Tokenizer, make_pool: MakePool, chunk: int) -> None:
    texts = texts_of(50)
    batches = list(make_pool().stream(iter(texts), overflow="window", stride=None, chunk=chunk))
    assert len(batches) == -(-50 // chunk)
    for start, batch in zip(range(0, 50, chunk), batches, strict=True):
        assert_same(batch, tokenize(texts[start : start + chunk], overflow="window"))


def test_a_stream_yields_the_batches_before_an_error(make_pool: MakePool) -> None:
    texts: list[Any] = ["hello"] * 20 + [None]
    stream = make_pool().stream(texts, overflow="truncate", stride=None, chunk=20)
    assert len(next(stream)) == 20
    with pytest.raises(InputError, match="text 20: expected a str"):
        next(stream)


@pytest.mark.parametrize("size", [1, 16, 17])
def test_a_later_change_of_the_list_does_not_change_the_batch(make_pool: MakePool, size: int) -> None:
    texts = ["hello"] * size
    batch = make_pool(return_offsets=True)(texts)
    texts[0] = "my card"
    assert list(batch.texts) == ["hello"] * size


@pytest.mark.parametrize("size", [1, 50])
def test_a_closed_engine_is_an_error(make_pool: MakePool, engine: Engine, size: int) -> None:
    engine.close()
    with pytest.raises(ModelClosedError):
        make_pool()(texts_of(size))


def test_truncated_texts_are_counted(make_pool: MakePool, engine: Engine) -> None:
    make_pool()(texts_of(50))
    assert engine.recorder.stats().truncated == sum(len(str(text)) > 40 for text in texts_of(50))
