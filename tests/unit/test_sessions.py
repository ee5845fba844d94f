"""Browser sessions: tickets are good once and for a time, cookies for a time and under one key."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from auth_service.sessions import SESSION_S, TICKET_S, Sessions


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(b"secret", clock)


def test_a_ticket_is_good_once(sessions: Sessions) -> None:
    ticket = sessions.new_ticket()

    assert sessions.take_ticket(ticket)
    assert not sessions.take_ticket(ticket)
    assert not sessions.take_ticket("another")
    assert not sessions.take_ticket("")


def test_of_all_who_take_a_ticket_at_once_one_gets_it(sessions: Sessions) -> None:
    ticket = sessions.new_ticket()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: sessions.take_ticket(ticket), range(64)))

    assert got.count(True) == 1


def test_a_ticket_ends_after_ten_minutes(sessions: Sessions, clock: Clock) -> None:
    early, late = sessions.new_ticket(), sessions.new_ticket()
    clock.now += TICKET_S - 1
    assert sessions.take_ticket(early)
    clock.now += 1
    assert not sessions.take_ticket(late)


def test_a_flood_of_tickets_pushes_out_the_oldest_and_keeps_the_newest(sessions: Sessions) -> None:
    tickets = [sessions.new_ticket() for _ in range(101)]

    assert not sessions.take_ticket(tickets[0])
    assert sessions.take_ticket(tickets[1])
    assert sessions.take_ticket(tickets[-1])


def test_a_cookie_is_good_for_twelve_hours(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.cookie()
    clock.now += SESSION_S - 1
    assert sessions.is_good(cookie)
    clock.now += 1
    assert not sessions.is_good(cookie)


def test_another_key_ends_every_session(sessions: Sessions, clock: Clock) -> None:
    assert not Sessions(b"other", clock).is_good(sessions.cookie())
    assert Sessions(b"secret", clock).is_good(sessions.cookie())


def test_no_changed_cookie_is_good(sessions: Sessions) -> None:
    cookie = sessions.cookie()
    body, _, signature = cookie.rpartition(".")
    version, until, noise = body.split(".")
    forged = [
        f"{version}.{int(until) + 1}.{noise}.{signature}",
        f"{body}.{signature[:-1]}",
        f"{body}.",
        f".{signature}",
        body,
        signature,
        "",
        "....",
        "ä.ü",
    ]

    assert [each for each in forged if sessions.is_good(each)] == []
    assert sessions.is_good(cookie)
