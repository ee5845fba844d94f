"""Rounds of a benchmark: their order, which runs are void, and that no error is lost."""

from collections.abc import Iterator

import pytest

from benchmarks.rounds import ATTEMPTS, Arm, Figures, Spread, WrongAnswerError, measure, order


def steady(seconds: float) -> Arm:
    return lambda _number: {"s": seconds}


def drifting(*values: float) -> Arm:
    """An arm that measures these values one after the other, and then begins again."""
    taken: list[float] = []

    def arm(_number: int) -> Figures:
        taken.append(values[len(taken) % len(values)])
        return {"s": taken[-1]}

    return arm


def standing() -> float:
    return 0.0


def test_each_second_round_runs_backwards_with_the_control_between_ours_and_itself() -> None:
    seen: list[str] = []

    def ours(number: int) -> Figures:
        seen.append(f"ours {number}")
        return {"s": 1.0}

    def control(number: int) -> Figures:
        seen.append(f"control {number}")
        return {"s": 1.0}

    measure(ours, control, "s", rounds=3)

    assert [order(number)[0] for number in range(4)] == ["ours", "again", "ours", "again"]
    assert seen == [
        *("ours 0", "control 0", "control 0"),
        *("control 1", "control 1", "ours 1"),
        *("ours 2", "control 2", "control 2"),
    ]


def test_a_ratio_is_reckoned_round_by_round_and_not_from_the_medians() -> None:
    # The machine is ten times slower in the last round, for both alike.
    measured = measure(drifting(2, 2, 20), drifting(1, 1, 1, 1, 10, 10), "s", rounds=3)

    assert measured.run.ratio("ours", "s") == Spread(2, 2, 2)
    assert measured.run.spread("ours", "s") == Spread(2, 2, 20)


def test_median_lowest_and_highest() -> None:
    assert Spread.of([5, 1, 9, 2]) == Spread(3.5, 1, 9)


@pytest.mark.parametrize(("null", "void"), [(0.79, True), (0.8, False), (1.0, False), (1.25, False), (1.26, True)])
def test_a_run_is_void_where_the_control_does_not_equal_itself(null: float, *, void: bool) -> None:
    measured = measure(steady(1), drifting(1, null), "s", rounds=1)

    assert measured.is_void is void
    assert measured.voids == (ATTEMPTS if void else 0)


def test_a_void_run_is_counted_and_measured_anew() -> None:
    measured = measure(steady(3), drifting(1, 2, 1, 1), "s", rounds=1)

    assert (measured.voids, measured.is_void) == (1, False)
    assert measured.run.ratio("ours", "s") == Spread(3, 3, 3)


def test_no_further_run_begins_once_the_time_is_over() -> None:
    ticks: Iterator[float] = iter([0.0, 4.0, 11.0])

    measured = measure(steady(1), drifting(1, 2), "s", rounds=1, budget_s=10, clock=lambda: next(ticks))

    assert (measured.voids, measured.is_void) == (2, True)


def test_an_error_takes_its_round_and_is_told_with_its_words() -> None:
    def ours(number: int) -> Figures:
        if number == 1:
            raise WrongAnswerError("503 starting")
        return {"s": 2.0}

    measured = measure(ours, steady(1), "s", rounds=3, clock=standing)

    assert measured.errors == ("ours, round 1: WrongAnswerError: 503 starting",)
    assert len(measured.run.rounds) == 2
    assert not measured.is_void


def test_errors_of_void_runs_are_kept() -> None:
    def broken(_number: int) -> Figures:
        raise ConnectionResetError("gone")

    measured = measure(broken, steady(1), "s", rounds=2, clock=standing)

    assert len(measured.errors) == 2 * ATTEMPTS
    assert (measured.voids, measured.is_void) == (ATTEMPTS, True)
    assert measured.run.names() == []


def test_a_figure_of_ours_alone_has_a_spread_and_no_ratio() -> None:
    measured = measure(lambda _number: {"s": 2.0, "server_cpu_us": 300.0}, steady(1), "s", rounds=2)

    assert measured.run.names() == ["s", "server_cpu_us"]
    assert measured.run.spread("ours", "server_cpu_us") == Spread(300, 300, 300)
    assert measured.run.ratio("ours", "server_cpu_us") is None
