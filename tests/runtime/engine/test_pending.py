"""What is begun ahead: in order, one ahead and no more, no error before the results that came before it."""

import pytest

from encort.runtime.common.errors import InputError
from encort.runtime.engine.pending import prefetch


class Fake:
    """Pending work whose result and cancellation are calls."""

    def __init__(self, result, cancel=lambda: None):
        self.result, self.cancel = result, cancel


@pytest.fixture
def seen():
    return []


@pytest.fixture
def begin(seen):
    """Begins the work on a number, and writes down what becomes of it."""

    def begin(number):
        seen.append(f"begin {number}")
        return Fake(
            result=lambda: seen.append(f"result {number}") or 10 * number,
            cancel=lambda: seen.append(f"cancel {number}"),
        )

    return begin


@pytest.mark.parametrize("count", range(4))
def test_results_come_in_order(begin, count):
    assert list(prefetch(begin, range(count))) == [10 * number for number in range(count)]


def test_the_next_is_begun_before_a_result_is_given_and_no_more(begin, seen):
    results = prefetch(begin, range(9))
    assert seen == []
    assert next(results) == 0
    assert seen == ["begin 0", "begin 1", "result 0"]
    assert next(results) == 10
    assert seen[3:] == ["begin 2", "result 1"]


def test_who_leaves_early_cancels_what_is_begun(begin, seen):
    results = prefetch(begin, range(9))
    next(results)
    results.close()
    assert "cancel 1" in seen
    assert "begin 2" not in seen


def numbers_then_an_error():
    yield from (0, 1)
    raise InputError("the third is wrong")


def begin_small(number):
    if number > 1:
        raise InputError("the third is wrong")
    return Fake(lambda: number, cancel=lambda: None)


def test_an_error_of_the_items_comes_after_the_results_before_it(begin):
    results = prefetch(begin, numbers_then_an_error())
    assert [next(results), next(results)] == [0, 10]
    with pytest.raises(InputError, match="third"):
        next(results)


def test_an_error_of_a_beginning_comes_after_the_results_before_it():
    results = prefetch(begin_small, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match="third"):
        next(results)


def test_an_error_of_a_result_is_given_in_its_place_and_the_next_is_cancelled(seen):
    def begin(number):
        return Fake(lambda: 1 / number, cancel=lambda: seen.append(number))

    results = prefetch(begin, [2, 0, 1, 4])
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert seen == [0, 1]
    assert list(results) == []
