"""The doorbell: rings that are never lost to who counts before it looks, and times at which it rings by itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from modelyard.store.doorbell import COMMITTED, Doorbell

DEADLINE_S = 60.0
FOREVER_S = 600.0


def test_a_ring_between_the_count_and_the_wait_is_not_lost() -> None:
    bell = Doorbell()
    seen = bell.count("door")
    bell.ring("door")

    assert bell.wait("door", seen, FOREVER_S) > seen


def test_the_wait_ends_with_its_time_and_nothing_rang() -> None:
    bell = Doorbell()

    assert bell.wait("door", bell.count("door"), 0.01) == bell.count("door")


def test_who_waits_on_several_channels_is_woken_by_each_and_by_no_other() -> None:
    bell = Doorbell()
    for channel in ("door", COMMITTED):
        seen = bell.count("door", COMMITTED)
        bell.ring("window")
        assert bell.count("door", COMMITTED) == seen
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(bell.wait, "door", seen, FOREVER_S, COMMITTED)
            bell.ring(channel)
            assert waiting.result(DEADLINE_S) > seen


def test_a_set_time_wakes_every_thread_that_waits_on_the_channel() -> None:
    bell = Doorbell()
    seen = bell.count("door")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(bell.wait, "door", seen, FOREVER_S) for _ in range(3)]
        bell.ring_in("door", 0.05)
        assert {each.result(DEADLINE_S) for each in waiting} == {bell.count("door")}
    # It has rung: the next wait is not cut short by it.
    assert bell.wait("door", bell.count("door"), 0.01) == bell.count("door") > seen


def test_the_earliest_of_several_times_counts_and_other_channels_have_none() -> None:
    bell = Doorbell()
    bell.ring_in("door", FOREVER_S)
    bell.ring_in("door", 0.01)
    bell.ring_in("door", FOREVER_S)
    bell.ring_in("window", 0.0)
    seen = bell.count("door")

    assert bell.wait("door", seen, FOREVER_S) > seen


def test_a_time_that_is_set_while_a_thread_waits_already_wakes_it() -> None:
    bell, begun = Doorbell(), threading.Event()
    seen = bell.count("door")

    def wait() -> int:
        begun.set()
        return bell.wait("door", seen, FOREVER_S)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait(DEADLINE_S)
        bell.ring_in("door", 0.0)
        assert waiting.result(DEADLINE_S) > seen


def test_whoever_waits_is_woken_where_the_watch_begins_and_where_it_ends() -> None:
    bell = Doorbell()
    before = bell.count("door")
    with bell.watched():
        within = bell.count("door")
        assert bell.is_watched
    assert not bell.is_watched
    assert before < within < bell.count("door")


def test_a_wait_that_is_over_leaves_a_later_time_to_the_next_one() -> None:
    bell = Doorbell()
    bell.ring_in("door", 0.05)
    seen, began = bell.count("door"), time.monotonic()
    while bell.wait("door", seen, 0.001) == seen:
        assert time.monotonic() - began < DEADLINE_S


def test_who_is_woken_by_something_else_at_that_time_takes_it_from_nobody() -> None:
    bell = Doorbell()
    others = bell.count("door")
    seen = bell.count("window", "door")
    bell.ring_in("door", 0.0)
    bell.ring("window")

    assert bell.wait("window", seen, FOREVER_S, "door") > seen
    assert bell.wait("door", others, FOREVER_S) > others
