"""What a process says of the parts that it depends on."""

import threading

from modelyard.domain.errors import Unavailable
from modelyard.run.dependencies import Dependencies


class Part:
    """A part that answers once it is up, and counts how often it was asked."""

    def __init__(self) -> None:
        self.is_up = False
        self.asked = 0
        self.up_at = 0

    def answer(self) -> None:
        self.asked += 1
        if self.asked == self.up_at:
            self.is_up = True
        if not self.is_up:
            raise Unavailable("away", "It is away.", "Start it.")


def test_what_was_not_looked_at_is_not_told() -> None:
    parts = Dependencies({"one": Part().answer})
    assert (parts.state(), parts.down()) == ({}, {})


def test_a_part_that_is_away_is_told_with_why_until_it_answers() -> None:
    one, two = Part(), Part()
    two.is_up = True
    parts = Dependencies({"one": one.answer, "two": two.answer})
    assert parts.step() is False
    assert parts.state() == {"one": "down", "two": "up"}
    assert parts.down() == {"one": "It is away. Start it."}
    one.is_up, two.is_up = True, False
    parts.step()
    assert parts.state() == {"one": "up", "two": "down"}
    assert list(parts.down()) == ["two"]


def test_waiting_ends_when_the_part_answers() -> None:
    part = Part()
    part.up_at = 2
    assert Dependencies({"part": part.answer}).wait_for("part", threading.Event()) is True
    assert part.asked == 2


def test_waiting_ends_when_the_process_does() -> None:
    part, stopping = Part(), threading.Event()
    stopping.set()
    assert Dependencies({"part": part.answer}).wait_for("part", stopping) is False
    assert part.asked == 0
