"""A service refuses the texts and options that the model refuses, with the same errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import encort
from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError, WrongTaskError
from tests.runtime.serving.helpers import LONG, PAIRS

NOT_TEXTS = [None, 3, b"bytes", ("hello", None)]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda service: service.tag("hello"), WrongTaskError),
        (lambda service: service.classify("hello", head="moods"), WrongTaskError),
        (lambda service: service.embed("\ud800"), InputError),
        (lambda service: service.embed(LONG, overflow="error"), InputTooLongError),
        (lambda service: service.embed("hello", overflow="windows"), InputError),
        (lambda service: service.embed(LONG, overflow="window", stride=64), InputTooLongError),
        (lambda service: service.embed("hello", stride="x"), InputTypeError),
        (lambda service: service.embed(["hello", "hello"]), InputTypeError),
        (lambda service: service.embed(("a", "b", "c")), InputTypeError),
    ],
)
def test_a_service_raises_the_errors_of_the_model(
    classifier: encort.Model, call: Callable[[Any], Any], error: type[Exception]
) -> None:
    async def call_async() -> None:
        async with classifier.serving() as service:
            await call(service)

    with classifier.serving() as service, pytest.raises(error):
        call(service)
    with pytest.raises(error):
        asyncio.run(call_async())


@pytest.mark.parametrize("text", NOT_TEXTS)
def test_a_value_that_is_not_a_text_is_refused(classifier: encort.Model, text: Any) -> None:
    with classifier.serving() as service, pytest.raises(InputTypeError, match="expected a"):
        service.embed(text)


@pytest.mark.parametrize("text", NOT_TEXTS)
def test_an_async_service_refuses_a_value_that_is_not_a_text(classifier: encort.Model, text: Any) -> None:
    async def embed() -> None:
        async with classifier.serving() as service:
            await service.embed(text)

    with pytest.raises(InputTypeError, match="expected a"):
        asyncio.run(embed())


@pytest.mark.parametrize("option", [{"timeout": 3}, {"overflows": "error"}, {"head": "topics"}])
def test_an_unknown_option_is_refused(classifier: encort.Model, option: dict[str, Any]) -> None:
    with classifier.serving() as service, pytest.raises(TypeError, match=next(iter(option))):
        service.embed("hello", **option)


def test_answer_needs_pairs_and_tag_needs_single_texts(all_tasks: encort.Model) -> None:
    not_a_pair: Any = "hello"
    not_a_number: Any = "2"
    with all_tasks.serving() as service:
        with pytest.raises(InputTypeError, match="pair of question and context"):
            service.answer(not_a_pair)
        with pytest.raises(InputTypeError, match="pairs cannot be tagged"):
            service.tag(PAIRS[0])
        with pytest.raises(InputError, match="n_best must be at least 1, got 0"):
            service.answer(PAIRS[0], n_best=0)
        with pytest.raises(InputTypeError, match="n_best must be a whole number, got '2'"):
            service.answer(PAIRS[0], n_best=not_a_number)
    assert all_tasks.stats().queued_tokens == 0
