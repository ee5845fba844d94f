"""What happens to an account while it is changed: nothing that was given out meanwhile outlives the change."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select
from stage import DEADLINE_S, Stage, in_thread

from auth_service import account_rows
from auth_service.keys import MOST_KEYS, KeyWish
from auth_service.owner import ensure_owner
from modelyard.domain.accounts import AccountState, Role
from modelyard.domain.api_keys import new_key
from modelyard.domain.errors import ModelyardError, Unauthenticated
from modelyard.store.account_tables import ApiKeyRow, SessionRow
from modelyard.store.audit import Actor
from modelyard.web.access import Principal

ADA = Actor("ada")
PASSWORD = "seven blue stones under 4711"
HELD_S = 0.3
"""How long a change is under way: whoever does not wait for it has ended by then."""


@pytest.fixture
def yard(stage: Stage) -> Stage:
    stage.auth.doors.accounts.create(ADA, "ada", Role.MEMBER, PASSWORD)
    return stage


@contextmanager
def while_changed(stage: Stage, beside: Callable[[], object], state: AccountState = AccountState.ACTIVE) -> Iterator["Future[object]"]:
    """All that the account has is ended, in a transaction that commits while the other call is under way."""
    with stage.database.write() as session:
        known = account_rows.find(session, "ada")
        assert known is not None
        account_rows.change(session, known.account.id, 1.0, role=Role.MEMBER, state=state)
        account_rows.end_all(session, known.account.id, 1.0, "changed")
        if state is AccountState.ACTIVE:
            account_rows.set_password(session, known.account.id, "another", 1.0)
        begun = in_thread(beside)
        wait([begun], HELD_S)
    wait([begun], DEADLINE_S)
    yield begun


def open_sessions(stage: Stage) -> int:
    with stage.database.read() as session:
        return session.scalar(select(func.count()).select_from(SessionRow).where(SessionRow.revoked_at.is_(None))) or 0


def test_a_log_in_with_the_password_that_is_being_changed_opens_nothing(yard: Stage) -> None:
    log_in = yard.auth.doors.log_in
    for way in (log_in.by_password, log_in.for_program):
        yard.auth.doors.accounts.set_password(ADA, "ada", PASSWORD)
        with while_changed(yard, lambda: way("ada", PASSWORD, "127.0.0.1", "", "test", ADA)) as begun:  # noqa: B023 - awaited within the block
            assert isinstance(begun.exception(), Unauthenticated)
        assert open_sessions(yard) == 0


def test_a_link_of_an_account_that_is_being_disabled_opens_nothing(yard: Stage) -> None:
    ticket = yard.auth.doors.sessions.new_ticket("ada")
    with while_changed(yard, lambda: yard.auth.doors.sessions.enter(ticket, ADA, "test"), AccountState.DISABLED) as begun:
        assert begun.result() is None
    assert open_sessions(yard) == 0


def test_of_two_who_change_the_password_from_the_same_one_only_the_first_does(yard: Stage) -> None:
    caller = Principal("ada", Role.MEMBER, frozenset(), account_id(yard), "session:x")
    with while_changed(yard, lambda: yard.auth.doors.accounts.change_password(caller, PASSWORD, f"{PASSWORD} new", ADA)) as begun:
        assert isinstance(begun.exception(), Unauthenticated)
    with yard.database.read() as session:
        known = account_rows.find(session, "ada")
    assert known is not None
    assert known.hash == "another"


def test_keys_that_are_made_at_once_count_each_other(yard: Stage) -> None:
    keys, caller = yard.auth.doors.keys, Principal("ada", Role.MEMBER, frozenset({"predict"}), account_id(yard), "session:x")
    wish = KeyWish("camera", ["predict"])
    for _ in range(MOST_KEYS - 2):
        keys.create(caller, wish, ADA)

    def make(_n: int) -> str:
        try:
            return keys.create(caller, wish, ADA).id
        except ModelyardError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert made.count("too_many_keys") == 6
    assert len(keys.listed(caller)) == MOST_KEYS


def test_several_that_start_at_once_have_one_owner_and_one_key(stage: Stage) -> None:
    key = new_key()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _n: ensure_owner(stage.database, key, 1.0), range(8)))

    with stage.database.read() as session:
        kept = select(func.count()).select_from(ApiKeyRow).where(ApiKeyRow.id == key.id, ApiKeyRow.revoked_at.is_(None))
        assert session.scalar(kept) == 1


def account_id(stage: Stage) -> str:
    with stage.database.read() as session:
        known = account_rows.find(session, "ada")
    assert known is not None
    return known.account.id
