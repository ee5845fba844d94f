"""Forged tokens over the real routes: the API and the calls of models answer each of them 401."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, select
from stage import Stage
from tokens.attacks import API, APP_HOST, Attack, Server, attacks, good
from tokens.forge import jwk

from modelyard.domain.accounts import ALL_SCOPES, Role
from modelyard.store.account_tables import SigningKeyRow
from modelyard.store.row import Row
from modelyard.web import tokens
from modelyard.web.tokens import Claims, payload_of

PATHS = ("/models/ada", "/m/ada/fruit/predict")


@pytest.fixture
def server(stage: Stage) -> Server:
    """The stage's door with a key of ours; one that it trusted before has ended."""
    key, retired = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = stage.kernel.clock()
    with stage.database.write() as session:
        for kid, each, ends_at in (("now", key, None), ("before", retired, now - 1)):
            session.add(SigningKeyRow(kid=kid, jwk=jwk(each, kid), created_at=now, signs_from=now, ends_at=ends_at))
    stage.credentials.refresh()
    claims = Claims("a1", "ada", Role.MEMBER, ALL_SCOPES, 0, "s1", now + 600)
    for_app = Claims("a1", "ada", Role.MEMBER, frozenset(), 0, "s1", now + 600, "m1")
    return Server(key, "now", retired, "before", now, {API: payload_of(claims, API, now), APP_HOST: payload_of(for_app, APP_HOST, now)})


def test_every_forged_token_is_answered_401_and_leaves_nothing_behind(stage: Stage, server: Server) -> None:
    stage.ready("fruit", owner="ada")
    forged = [attack for attack in attacks(server) if attack.audience == API]
    before = rows(stage)

    assert len(forged) >= 120
    wrong = [(attack.name, path, status) for attack in forged for path in PATHS if (status := answer(stage, attack, path)) != 401]
    assert wrong == []
    assert rows(stage) == before


def test_the_same_token_without_a_flaw_passes(stage: Stage, server: Server) -> None:
    token = good(server)

    for path in PATHS:
        assert answer(stage, Attack("good", token, API), path) == 200


def test_what_opens_a_models_own_host_opens_nothing_of_the_api(stage: Stage, server: Server) -> None:
    for path in PATHS:
        assert answer(stage, Attack("of an app", good(server, APP_HOST), API), path) == 401


def test_a_refusal_tells_nothing_of_why_and_repeats_nothing_of_the_token(stage: Stage, server: Server) -> None:
    told = set()
    for attack in attacks(server):
        if attack.audience == API and len(attack.token) < tokens.LONGEST:
            body = stage.client().get("/models/ada", headers=[(b"authorization", bearer(attack.token))]).json()
            told.add(json.dumps({name: value for name, value in body.items() if name != "request_id"}))

    assert len(told) == 1
    assert "bad_credential" in told.pop()


def test_a_token_as_a_cookie_in_the_query_or_as_basic_is_none(stage: Stage, server: Server) -> None:
    token = good(server)

    for path in PATHS:
        assert stage.client(cookie=token).get(path).status_code == 401
        assert stage.client().get(path, params={"access_token": token, "token": token}).status_code == 401
        for scheme in ("Basic", "Token", "JWT", "Bearer:", ""):
            assert stage.client().get(path, headers={"authorization": f"{scheme} {token}".strip()}).status_code == 401, scheme
        for name in ("x-api-key", "x-access-token", "x-modelyard-user", "x-user", "proxy-authorization"):
            assert stage.client().get(path, headers={name: f"Bearer {token}"}).status_code == 401, name


def answer(stage: Stage, attack: Attack, path: str) -> int:
    return stage.client().get(path, headers=[(b"authorization", bearer(attack.token))]).status_code


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode("utf-8", "surrogatepass")


def rows(stage: Stage) -> dict[str, int]:
    with stage.database.read() as session:
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in Row.metadata.sorted_tables}
