"""Credentials: what is good, for how long, and how fast it is not any more."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from kept import DISK_FULL, refused
from sqlalchemy import text, update
from stage import Stage, until
from tokens.forge import in_second_form

from auth_service import repository
from auth_service.signing import KNOWN_S, Signer
from modelyard.domain.accounts import ALL_SCOPES, AccountState, Role, Scope
from modelyard.domain.api_keys import ApiKey, new_key
from modelyard.store import accounts
from modelyard.store.account_tables import AccountRow, ApiKeyRow, SessionRow
from modelyard.store.accounts import Holder
from modelyard.store.audit import Actor
from modelyard.web.access import Principal
from modelyard.web.credentials import KEPT_S, MOST_KEPT, Credentials
from modelyard.web.tokens import API, APP_HOST, LEEWAY_S, LONGEST, Claims, payload_of

ACCESS_S = 600.0
Found = Principal | None


def ask(question: Coroutine[Any, Any, Found]) -> Found:
    return asyncio.run(question)


def by_token(stage: Stage, token: str) -> Found:
    return ask(stage.credentials.by_token(token))


def by_cookie(stage: Stage, value: str) -> Found:
    return ask(stage.credentials.by_cookie(value))


@pytest.fixture
def signer(stage: Stage) -> Signer:
    made = Signer(stage.database, stage.folder, stage.kernel.clock, ACCESS_S)
    stage.ahead_s += KNOWN_S
    stage.credentials.refresh()
    return made


def held(stage: Stage, username: str = "mia") -> Holder:
    with stage.database.read() as session:
        found = accounts.holder(session, username)
    assert found is not None
    return found


def claims(stage: Stage, username: str = "mia", session_id: str = "s1") -> Claims:
    who = held(stage, username)
    scopes = ALL_SCOPES - {Scope.ADMIN}
    return Claims(who.account_id, username, who.role, scopes, who.epoch, session_id, stage.kernel.clock() + ACCESS_S)


def token(stage: Stage, signer: Signer, **changed: Any) -> str:
    return signer.sign(payload_of(replace(claims(stage), **changed), API, stage.kernel.clock()))


def app_cookie(stage: Stage, signer: Signer, cookie: str, model_id: str = "m1") -> str:
    who = held(stage, "owner")
    said = Claims(
        who.account_id, "owner", who.role, frozenset(), who.epoch, cookie.partition(".")[0], stage.kernel.clock() + 3600, model_id
    )
    return signer.sign(payload_of(said, APP_HOST, stage.kernel.clock()))


def refuse(stage: Stage, subject: str, epoch: int = 0) -> None:
    with stage.database.write() as session:
        repository.refuse(session, subject, stage.kernel.clock(), epoch)


def change(stage: Stage, username: str, **values: Any) -> int:
    """Change an account as the auth service does: all that was given out to it ends."""
    who = held(stage, username)
    with stage.database.write() as session:
        session.execute(update(AccountRow).where(AccountRow.id == who.account_id).values(epoch=who.epoch + 1, **values))
        repository.refuse(session, f"account:{who.account_id}", stage.kernel.clock(), who.epoch + 1)
    return who.epoch + 1


def test_each_credential_says_who_calls_and_with_what(stage: Stage, signer: Signer) -> None:
    key, cookie = stage.key("mia", {Scope.READ}), stage.cookie("mia")
    account_id, session_id = held(stage).account_id, cookie.partition(".")[0]

    assert by_token(stage, key.text) == Principal("mia", Role.MEMBER, frozenset({"models:read"}), account_id, f"key:{key.id}")
    assert by_cookie(stage, cookie) == Principal("mia", Role.MEMBER, ALL_SCOPES, account_id, f"session:{session_id}", by_cookie=True)
    assert by_token(stage, token(stage, signer)) == Principal("mia", Role.MEMBER, ALL_SCOPES - {"admin"}, account_id, "session:s1")


def test_a_revoked_key_is_refused_at_once_after_a_refresh_though_it_was_just_good(stage: Stage) -> None:
    assert by_token(stage, stage.member.text) is not None

    with stage.database.write() as session:
        session.get_one(ApiKeyRow, stage.member.id).revoked_at = stage.kernel.clock()
        repository.refuse(session, f"key:{stage.member.id}", stage.kernel.clock())
    assert by_token(stage, stage.member.text) is not None
    stage.credentials.refresh()

    assert by_token(stage, stage.member.text) is None
    assert by_token(stage, stage.key("mia").text) is not None


def test_an_ended_session_is_refused_at_once_as_a_cookie_and_as_its_tokens(stage: Stage, signer: Signer) -> None:
    cookie, other = stage.cookie("mia"), stage.cookie("mia")
    session_id = cookie.partition(".")[0]
    access = token(stage, signer, session_id=session_id)
    elsewhere = token(stage, signer, session_id=other.partition(".")[0])
    assert None not in {by_cookie(stage, cookie), by_token(stage, access)}

    stage.auth.sessions.end(session_id, Actor("mia"))
    stage.credentials.refresh()

    assert (by_cookie(stage, cookie), by_token(stage, access)) == (None, None)
    assert by_cookie(stage, other) is not None
    assert by_token(stage, elsewhere) is not None


def test_a_new_role_ends_tokens_at_once_and_shows_in_keys_and_cookies(stage: Stage, signer: Signer) -> None:
    key, cookie, access = stage.member.text, stage.cookie("mia"), token(stage, signer)
    assert None not in {by_token(stage, key), by_cookie(stage, cookie), by_token(stage, access)}

    change(stage, "mia", role=Role.VIEWER)
    stage.credentials.refresh()

    assert by_token(stage, access) is None
    found = [by_token(stage, key), by_cookie(stage, cookie), by_token(stage, token(stage, signer))]
    assert [each.role for each in found if each] == [Role.VIEWER] * 3


def test_a_disabled_account_is_refused_with_all_that_it_holds_and_enabled_again_its_old_tokens_stay_dead(
    stage: Stage, signer: Signer
) -> None:
    key, cookie, access = stage.member.text, stage.cookie("mia"), token(stage, signer)
    who = held(stage)
    assert None not in {by_token(stage, key), by_cookie(stage, cookie), by_token(stage, access)}

    change(stage, "mia", state=AccountState.DISABLED)
    stage.credentials.refresh()
    assert [by_token(stage, key), by_cookie(stage, cookie), by_token(stage, access)] == [None] * 3

    with stage.database.write() as session:
        session.get_one(AccountRow, who.account_id).state = AccountState.ACTIVE
    assert by_token(stage, key) is not None
    assert by_token(stage, access) is None
    assert by_token(stage, token(stage, signer)) is not None


def test_a_revocation_outlives_every_token_that_it_refuses(stage: Stage, signer: Signer) -> None:
    """The longest that there may be: a token for a model's own host, signed with a clock that is a minute ahead."""
    access = token(stage, signer)
    refuse(stage, "session:s1")

    while stage.ahead_s < KNOWN_S + ACCESS_S + 2 * LEEWAY_S:
        stage.credentials.refresh()
        assert by_token(stage, access) is None
        stage.ahead_s += 50
    assert repository.REFUSED_S >= 86400 + LEEWAY_S


def test_a_token_lives_to_its_end_and_the_leeway_and_no_longer_however_often_it_was_shown(stage: Stage, signer: Signer) -> None:
    access = token(stage, signer)
    assert by_token(stage, access) is not None

    stage.ahead_s += ACCESS_S + LEEWAY_S - 5
    stage.credentials.refresh()
    assert by_token(stage, access) is not None
    stage.ahead_s += 6
    assert by_token(stage, access) is None


def test_a_dropped_key_takes_its_tokens_with_it_though_they_were_just_good(stage: Stage, signer: Signer) -> None:
    access, cookie = token(stage, signer), stage.cookie()
    visit = app_cookie(stage, signer, cookie)
    assert by_token(stage, access) is not None
    assert ask(stage.credentials.by_app_cookie(visit, "m1")) is not None

    for kid in list_of_keys(stage):
        signer.drop(kid)
    stage.credentials.refresh()

    assert by_token(stage, access) is None
    assert ask(stage.credentials.by_app_cookie(visit, "m1")) is None
    stage.ahead_s += KNOWN_S
    assert by_token(stage, token(stage, signer)) is not None


def list_of_keys(stage: Stage) -> list[str]:
    with stage.database.read() as session:
        return list(accounts.public_keys(session, stage.kernel.clock()))


def test_a_key_ends_at_its_hour_also_where_it_was_just_good(stage: Stage) -> None:
    ends = stage.kernel.clock() + 5
    with stage.database.write() as session:
        session.get_one(ApiKeyRow, stage.member.id).expires_at = ends
    assert by_token(stage, stage.member.text) is not None

    stage.ahead_s += 5
    assert by_token(stage, stage.member.text) is None


def test_a_session_ends_at_its_hour_also_where_it_was_just_good(stage: Stage) -> None:
    cookie = stage.cookie("mia")
    with stage.database.write() as session:
        session.get_one(SessionRow, cookie.partition(".")[0]).expires_at = stage.kernel.clock() + 5
    assert by_cookie(stage, cookie) is not None

    stage.ahead_s += 5
    assert by_cookie(stage, cookie) is None


def test_what_no_doorbell_told_is_noticed_by_the_rows_within_seconds(stage: Stage) -> None:
    key, cookie = stage.member.text, stage.cookie("mia")
    assert None not in {by_token(stage, key), by_cookie(stage, cookie)}
    with stage.database.write() as session:
        session.execute(update(AccountRow).where(AccountRow.username == "mia").values(state=AccountState.DISABLED))

    stage.ahead_s += KEPT_S
    assert (by_token(stage, key), by_cookie(stage, cookie)) == (None, None)


def test_a_cookie_is_no_token_and_a_token_no_cookie_whatever_was_good_before(stage: Stage, signer: Signer) -> None:
    cookie, access, key = stage.cookie(), token(stage, signer), stage.member.text
    visit = app_cookie(stage, signer, cookie)
    for _ in range(2):
        assert None not in {by_cookie(stage, cookie), by_token(stage, access), by_token(stage, key)}
        assert ask(stage.credentials.by_app_cookie(visit, "m1")) is not None

        for kind in ("", "cookie ", "token ", "app m1 "):
            assert by_token(stage, kind + cookie) is None
            assert by_token(stage, kind + visit) is None
            for other in (access, key, visit):
                assert by_cookie(stage, kind + other) is None
            for other in (access, key, cookie):
                assert ask(stage.credentials.by_app_cookie(kind + other, "m1")) is None
    assert stage.client(cookie).get("/m/ada/fruit/").status_code == 401
    assert stage.client(f"cookie {cookie}").get("/m/ada/fruit/").status_code == 401


def test_a_cookie_of_one_models_host_opens_no_other_and_ends_with_its_session(stage: Stage, signer: Signer) -> None:
    cookie = stage.cookie()
    visit = app_cookie(stage, signer, cookie)
    found = ask(stage.credentials.by_app_cookie(visit, "m1"))
    assert found is not None
    assert (found.username, found.scopes, found.by_cookie) == ("owner", frozenset({"predict"}), True)

    assert ask(stage.credentials.by_app_cookie(visit, "m2")) is None
    assert ask(stage.credentials.by_app_cookie(visit, "")) is None

    stage.auth.sessions.end(cookie.partition(".")[0], Actor("mia"))
    stage.credentials.refresh()
    assert ask(stage.credentials.by_app_cookie(visit, "m1")) is None


def test_a_wrong_secret_is_refused_beside_the_right_one(stage: Stage) -> None:
    cookie, key = stage.cookie("mia"), stage.member
    session_id, _, secret = cookie.partition(".")
    assert None not in {by_cookie(stage, cookie), by_token(stage, key.text)}

    for wrong in (f"{session_id}.", f"{session_id}.{secret}x", f"{session_id}.{secret[:-1]}", f".{secret}", session_id, f"x.{secret}"):
        assert by_cookie(stage, wrong) is None, wrong
    assert by_token(stage, ApiKey(key.id, key.secret[::-1]).text) is None
    assert by_token(stage, ApiKey(key.id[::-1], key.secret).text) is None


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    "strange",
    [
        "",
        " ",
        "\0",
        ".",
        "..",
        "a.b",
        "\x00.\x00",
        "é.é",
        "\ud800.x",
        "x" * LONGEST,
        "x." + "y" * LONGEST,
        "' or 1=1 --.x",
        "my___",
        "%00.x",
        "\n.\n",
    ],
    ids=repr,
)
def test_strange_text_is_no_credential_and_raises_nothing(stage: Stage, strange: str) -> None:
    assert by_token(stage, strange) is None
    assert by_cookie(stage, strange) is None
    assert ask(stage.credentials.by_app_cookie(strange, "m1")) is None


@pytest.mark.leaves_nothing
def test_a_key_with_a_good_checksum_over_control_characters_reaches_no_query(stage: Stage) -> None:
    assert by_token(stage, ApiKey("\0" * 12, "\n" * 40).text) is None


def test_the_refresh_families_of_programs_are_no_cookies(stage: Stage) -> None:
    cookie = stage.cookie("mia")
    with stage.database.write() as session:
        session.execute(text("update sessions set kind = 'refresh'"))

    assert by_cookie(stage, cookie) is None


def test_what_is_kept_is_bounded_and_refusals_are_not_kept(stage: Stage, scaled: Callable[[int], int]) -> None:
    for count in range(scaled(2000)):
        assert by_token(stage, f"nothing{count}") is None
        assert by_cookie(stage, f"no.thing{count}") is None
    assert stage.credentials._known == {}

    known = stage.credentials._known
    assert by_token(stage, stage.member.text) is not None
    known.update({bytes([1]) + count.to_bytes(4, "big"): next(iter(known.values())) for count in range(MOST_KEPT)})
    assert by_token(stage, stage.key("mia").text) is not None
    assert len(known) <= MOST_KEPT


def test_the_last_use_of_a_key_is_noted_at_most_once_a_minute(stage: Stage) -> None:
    def last_use() -> float | None:
        with stage.database.read() as session:
            return session.get_one(ApiKeyRow, stage.member.id).last_used_at

    by_token(stage, stage.member.text)
    first = last_use()
    stage.ahead_s += accounts.USE_NOTED_S - 1
    by_token(stage, stage.member.text)
    assert last_use() == first
    stage.ahead_s += KEPT_S + 1
    by_token(stage, stage.member.text)
    assert first is not None
    assert (last_use() or 0) > first


def test_a_key_is_good_though_its_use_cannot_be_written(stage: Stage) -> None:
    with refused(stage, "update on api_keys", sqlstate=DISK_FULL):
        assert by_token(stage, stage.member.text) is not None


def test_a_process_that_begins_knows_what_was_revoked_before(stage: Stage, signer: Signer) -> None:
    access = token(stage, signer)
    refuse(stage, "session:s1")

    fresh = Credentials(stage.database, stage.kernel.clock)
    assert ask(fresh.by_token(access)) is None
    fresh.refresh()
    assert ask(fresh.by_token(access)) is None
    assert ask(fresh.by_token(token(stage, signer, session_id="s2"))) is not None


def test_whoever_is_let_in_while_a_key_is_revoked_is_refused_from_the_refresh_on(stage: Stage, scaled: Callable[[int], int]) -> None:
    """Lookups race revocations: a row that was read before the revocation is never kept beyond the refresh after it."""
    for _ in range(scaled(200)):
        key = stage.key("mia")
        begun, ended = threading.Event(), threading.Event()

        def look(key: ApiKey = key, begun: threading.Event = begun, ended: threading.Event = ended) -> int:
            asked = 0
            while not ended.is_set():
                stage.credentials._known.clear()
                asked += by_token(stage, key.text) is not None
                begun.set()
            return asked

        with ThreadPoolExecutor(3) as pool:
            looking = [pool.submit(look) for _ in range(3)]
            until(begun.is_set, "somebody was let in")
            with stage.database.write() as session:
                session.get_one(ApiKeyRow, key.id).revoked_at = stage.kernel.clock()
                repository.refuse(session, f"key:{key.id}", stage.kernel.clock())
            stage.credentials.refresh()
            after = [by_token(stage, key.text) for _ in range(3)]
            ended.set()
            assert sum(each.result() for each in looking) > 0
        assert after == [None] * 3
        assert by_token(stage, key.text) is None


def test_a_row_that_was_read_before_its_revocation_is_not_kept_after_it(stage: Stage) -> None:
    """The worst order, made to happen: read, revoked, refreshed, and only then kept."""
    database = stage.database
    known = stage.credentials._key(stage.member)
    assert known is not None

    with database.write() as session:
        session.get_one(ApiKeyRow, stage.member.id).revoked_at = stage.kernel.clock()
        repository.refuse(session, f"key:{stage.member.id}", stage.kernel.clock())
    stage.credentials.refresh()

    assert stage.credentials._keep(b"mark", known) is None
    assert stage.credentials._known == {}


def test_whoever_was_let_in_is_told_when_that_was_revoked(stage: Stage, signer: Signer) -> None:
    key, cookie, access = stage.key("mia"), stage.cookie(), token(stage, signer)
    browser, visit = stage.cookie(), stage.cookie()
    found = {
        f"key:{key.id}": by_token(stage, key.text),
        f"session:{cookie.partition('.')[0]}": by_cookie(stage, cookie),
        "session:s1": by_token(stage, access),
        f"session:{visit.partition('.')[0]}": ask(stage.credentials.by_app_cookie(app_cookie(stage, signer, visit), "m1")),
        f"account:{held(stage, 'owner').account_id}": by_cookie(stage, browser),
    }
    for subject, principal in found.items():
        assert principal is not None
        assert principal.still_good(), subject
        refuse(stage, subject, epoch=held(stage, "owner").epoch + 1 if subject.startswith("account:") else 0)
        assert principal.still_good(), "it is asked of memory alone"
        stage.credentials.refresh()
        assert not principal.still_good(), subject


def test_whoever_was_let_in_is_told_when_that_expires_and_not_when_it_is_looked_up_again(stage: Stage, signer: Signer) -> None:
    lasting, ending = stage.key("mia"), new_key()
    now = stage.kernel.clock()
    with stage.database.write() as session:
        repository.add_key(session, ending, held(stage).account_id, "ending", ALL_SCOPES, now, now + 1000)
    found = [by_token(stage, lasting.text), by_token(stage, ending.text), by_token(stage, token(stage, signer))]

    def still_good() -> list[bool]:
        return [each is not None and each.still_good() for each in found]

    stage.ahead_s += KEPT_S * 2
    assert still_good() == [True, True, True]
    stage.ahead_s += ACCESS_S + LEEWAY_S
    assert still_good() == [True, True, False]
    stage.ahead_s += 1000
    assert still_good() == [True, False, False]


def test_both_forms_of_a_signature_are_one_token_with_one_end(stage: Stage, signer: Signer) -> None:
    first = token(stage, signer)
    forms = [first, in_second_form(first)]
    found = [by_token(stage, form) for form in forms]

    assert forms[0] != forms[1]
    assert found[0] is not None
    assert (found[0], found[0].credential) == (found[1], "session:s1"), "calls are counted by the credential, not by its text"
    refuse(stage, "session:s1")
    stage.credentials.refresh()
    assert [by_token(stage, form) for form in forms] == [None, None]


def test_the_same_token_once_verified_is_not_verified_again(stage: Stage, signer: Signer) -> None:
    access = token(stage, signer)
    first = by_token(stage, access)

    assert first is not None
    assert by_token(stage, access) is first
