"""`queue_tokens`: the bound of the queue."""

import pytest

from encort.runtime.common.errors import InputError, InputTooLongError, OverloadedError
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums


def test_a_full_queue_refuses_new_texts_until_there_is_room(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(queue_tokens=4)
    fakes.hold(1)
    running = scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    queued = [scheduler.submit(batch_of([token, token]), SUMS) for token in (5, 6)]
    with pytest.raises(OverloadedError, match=r"4 tokens wait, and 1 more would pass queue_tokens=4"):
        scheduler.submit(batch_of([7]), SUMS)
    shared = [scheduler.submit(batch_of([5, 5]), SUMS), scheduler.submit(batch_of([1]), SUMS)]
    stats = scheduler._engine.recorder.stats()
    assert (stats.overloads, stats.queued_tokens, stats.shared) == (1, 4, 2)
    fakes.release()
    assert [sums(future)[0] for future in (running, *queued, *shared)] == [1, 10, 12, 10, 1]
    assert sums(scheduler.submit(batch_of([7]), SUMS)) == expected_sums(7)
    assert [[7]] in fakes.runs


def test_a_text_that_does_not_fit_into_the_empty_queue_is_too_long(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(queue_tokens=4)
    with pytest.raises(InputTooLongError, match="5 tokens does not fit into queue_tokens=4"):
        scheduler.submit(batch_of([5, 5], [6, 6, 6]), SUMS)
    assert sums(scheduler.submit(batch_of([5] * 4), SUMS)) == expected_sums(5, 5, 5, 5)


def test_a_cancelled_row_frees_its_room_and_does_not_run(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(queue_tokens=2)
    fakes.hold(1)
    scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    cancelled = scheduler.submit(batch_of([5, 6]), SUMS)
    with pytest.raises(OverloadedError):
        scheduler.submit(batch_of([7, 8]), SUMS)
    assert cancelled.cancel()
    stats = scheduler._engine.recorder.stats()
    assert (stats.queued_tokens, stats.expired) == (0, 1)
    other = scheduler.submit(batch_of([7, 8]), SUMS)
    fakes.release()
    assert sums(other) == expected_sums(7, 8)
    assert fakes.runs == [[[1]], [[7, 8]]]


def test_an_estimate_is_refused_only_while_other_tokens_wait(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(queue_tokens=4)
    fakes.hold(1)
    for tokens in (0, 4, 5, 10**9):
        scheduler.check_estimate(tokens)
    running = scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    scheduler.check_estimate(4)
    queued = scheduler.submit(batch_of([5, 5]), SUMS)
    scheduler.check_estimate(2)
    with pytest.raises(OverloadedError, match="2 tokens wait, and about 3 more would pass queue_tokens=4"):
        scheduler.check_estimate(3)
    scheduler.check_estimate(5)  # the exact check may say that no queue would hold it
    assert scheduler._engine.recorder.stats().overloads == 1
    fakes.release()
    assert [sums(future)[0] for future in (running, queued)] == [1, 10]


@pytest.mark.parametrize("queue_tokens", [0, -1])
def test_a_queue_without_room_is_refused(make_scheduler: MakeScheduler, queue_tokens: int) -> None:
    with pytest.raises(InputError, match="queue_tokens must be at least 1, got"):
        make_scheduler(queue_tokens=queue_tokens)
