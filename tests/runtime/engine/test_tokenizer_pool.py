"""However many threads tokenize, the batch is the one that the tokenizer alone gives for all texts."""

import dataclasses

import numpy as np
import pytest

from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError, ModelClosedError
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.tokenizer_pool import TokenizerPool
from encort.runtime.text.tokenizer import Tokenizer

LIMIT = 12
TEXTS = [
    "hello",
    "",
    "my card is lost",
    ("is it lost?", "my card"),
    "안녕하세요 😀",
    "card " * 30,
    ("pin?", "pin " * 40),
]
PAIRS = [(f"hello {number}", "my pin " * (number % 9)) for number in range(50)]
SIZES = [0, 1, 16, 17, 50]
all_sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture(scope="module")
def tokenize(classifier_bundle):
    return Tokenizer(classifier_bundle / "tokenizer.json", max_length=LIMIT)


@pytest.fixture
def engine(fakes, fake_variant):
    engine = Engine(fake_variant, fakes.open, threads=3, costs=Costs(), has_all_cores_session=True)
    yield engine
    engine.close()


@pytest.fixture
def make(tokenize, engine):
    def parallel(*, return_offsets=False, reverse=False, all_cores=False):
        return TokenizerPool(tokenize, engine, return_offsets=return_offsets, reverse=reverse, all_cores=all_cores)

    return parallel


def many(size):
    return [TEXTS[number % len(TEXTS)] for number in range(size)]


def assert_same(found, wanted):
    """Every array, down to those of places, windows and exchanged pairs."""
    for field in dataclasses.fields(wanted):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        if dataclasses.is_dataclass(other):
            assert_same(one, other)
        elif isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        elif field.name == "texts":
            assert list(one) == list(other)
        else:
            assert one is other is None


@all_sizes
@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("return_offsets", [False, True])
@pytest.mark.parametrize(("overflow", "stride"), [("truncate", None), ("window", None), ("window", 3)])
def test_a_batch_is_that_of_all_texts_at_once(tokenize, make, size, all_cores, return_offsets, overflow, stride):
    found = make(return_offsets=return_offsets, all_cores=all_cores)(many(size), overflow=overflow, stride=stride)
    assert_same(found, tokenize(many(size), overflow=overflow, stride=stride, return_offsets=return_offsets))
    assert (found.windows is not None) == (overflow == "window" and size > 5)


@all_sizes
@pytest.mark.parametrize("all_cores", [False, True])
def test_exchanged_pairs_are_those_of_all_pairs_at_once(tokenize, make, size, all_cores):
    found = make(reverse=True, all_cores=all_cores)(PAIRS[:size])
    assert_same(found, tokenize(PAIRS[:size], reverse=True))
    assert list(found.reversed.texts) == [(second, first) for first, second in PAIRS[:size]]


@all_sizes
def test_with_error_what_fits_is_a_batch(tokenize, make, size):
    fitting = many(size)
    fitting = [text if len(str(text)) < 30 else "hello" for text in fitting]
    assert_same(make()(fitting, overflow="error"), tokenize(fitting, overflow="error"))


@pytest.mark.parametrize("all_cores", [False, True])
@pytest.mark.parametrize("place", [3, 20, 49])
def test_an_error_names_the_text_among_all(make, all_cores, place):
    texts = ["hello"] * place + ["card " * 30] + ["hello"] * (49 - place)
    with pytest.raises(InputTooLongError, match=f"text {100 + place} has more than {LIMIT} tokens"):
        make(all_cores=all_cores)(texts, overflow="error", first=100)
    with pytest.raises(InputTypeError, match=f"text {100 + place}: expected a str"):
        make(all_cores=all_cores)([*texts[:place], None, *texts[place:]], first=100)


@pytest.mark.parametrize("chunk", [1, 7, 17, 100])
def test_a_stream_gives_the_batches_of_its_chunks_in_order(tokenize, make, chunk):
    texts = many(50)
    found = list(make().stream(iter(texts), overflow="window", stride=None, chunk=chunk))
    assert len(found) == -(-50 // chunk)
    for start, batch in zip(range(0, 50, chunk), found, strict=True):
        assert_same(batch, tokenize(texts[start : start + chunk], overflow="window"))


def test_a_stream_gives_what_came_before_an_error(make):
    stream = make().stream(["hello"] * 20 + [None], overflow="truncate", stride=None, chunk=20)
    assert len(next(stream)) == 20
    with pytest.raises(InputError, match="text 20: expected a str"):
        next(stream)


@pytest.mark.parametrize("size", [1, 16, 17])
def test_a_list_that_changes_later_changes_no_batch(make, size):
    texts = ["hello"] * size
    batch = make(return_offsets=True)(texts)
    texts[0] = "my card"
    assert list(batch.texts) == ["hello"] * size


@pytest.mark.parametrize("size", [1, 50])
def test_a_closed_engine_says_so(make, engine, size):
    engine.close()
    with pytest.raises(ModelClosedError):
        make()(many(size))


def test_cut_texts_are_counted(make, engine):
    make()(many(50))
    assert engine.recorder.stats().truncated == sum(len(str(text)) > 40 for text in many(50))
