"""What is begun ahead: in order, one ahead and no more, and no error before the results that came before it."""

import threading

import pytest

from encort.runtime.ahead import in_background, one_ahead
from encort.runtime.errors import InputError


def tracked():
    """`begin` of numbers, and a list of what was begun and finished."""
    seen = []

    def begin(number):
        seen.append(f"begin {number}")

        def finish():
            seen.append(f"finish {number}")
            return 10 * number

        return finish

    return begin, seen


@pytest.mark.parametrize("count", range(4))
def test_results_come_in_order(count):
    begin, _ = tracked()
    assert list(one_ahead(begin, range(count))) == [10 * number for number in range(count)]
    assert list(in_background(lambda number: 10 * number, range(count))) == [10 * number for number in range(count)]


def test_the_next_is_begun_before_a_result_is_given_and_no_more():
    begin, seen = tracked()
    results = one_ahead(begin, range(9))
    assert seen == []
    assert next(results) == 0
    assert seen == ["begin 0", "begin 1", "finish 0"]
    assert next(results) == 10
    assert seen[3:] == ["begin 2", "finish 1"]


def numbers_then_an_error():
    yield from (0, 1)
    raise InputError("the third is wrong")


def begin_small(number):
    if number > 1:
        raise InputError("the third is wrong")
    return lambda: number


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(lambda: one_ahead(begin_small, range(9)), id="a beginning"),
        pytest.param(lambda: one_ahead(begin_small, numbers_then_an_error()), id="the items"),
        pytest.param(lambda: in_background(lambda number: number, numbers_then_an_error()), id="in background"),
    ],
)
def test_an_error_comes_after_the_results_of_what_was_before(results):
    remaining = results()
    assert [next(remaining), next(remaining)] == [0, 1]
    with pytest.raises(InputError, match="third"):
        next(remaining)


def test_an_error_of_a_result_is_given_in_its_place():
    def invert(number):
        return 1 / number

    results = in_background(invert, [2, 0, 1])
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_two_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=10)
    assert list(in_background(lambda number: both.wait() is not None and number, range(4))) == [0, 1, 2, 3]
