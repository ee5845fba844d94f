"""The verifier of access tokens: what is good, and that nothing else is."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tokens import forge
from tokens.attacks import CASES, Server, attacks, good
from tokens.forge import encoded, jwk, raw

from modelyard.domain.accounts import Role
from modelyard.web import tokens
from modelyard.web.tokens import API, APP_HOST, LEEWAY_S, LONGEST, LONGEST_LIFE_S, Claims, TokenVerifier, payload_of

NOW = 1_800_000_000.0
KEY, RETIRED = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
CLAIMS = Claims("account-1", "ada", Role.MEMBER, frozenset({"models:read", "predict:ada/fruit"}), 3, "session-1", NOW + 600, "", "k1")
FOR_APP = replace(CLAIMS, scopes=frozenset(), model_id="model-1")
PAYLOAD = payload_of(CLAIMS, API, NOW)
SERVER = Server(KEY, "k1", RETIRED, "k0", NOW, {API: PAYLOAD, APP_HOST: payload_of(FOR_APP, APP_HOST, NOW)})
GOOD = good(SERVER)


def verifier(**jwks: dict[str, object]) -> TokenVerifier:
    made = TokenVerifier()
    made.trust(jwks or {"k1": jwk(KEY, "k1")})
    return made


OURS = verifier()


def signed(payload: dict[str, object], key: ec.EllipticCurvePrivateKey = KEY, kid: str = "k1") -> str:
    return jwt.encode(payload, key, "ES256", headers={"typ": "at+jwt", "kid": kid})


def test_a_good_token_says_whom_it_is_for() -> None:
    assert OURS.verify(GOOD, API, NOW) == CLAIMS
    assert OURS.verify(signed(PAYLOAD), API, NOW) == CLAIMS
    assert OURS.verify(good(SERVER, APP_HOST), APP_HOST, NOW) == FOR_APP


def test_a_token_without_scopes_is_good_and_has_none() -> None:
    claims = OURS.verify(signed({**PAYLOAD, "scope": ""}), API, NOW)

    assert claims is not None
    assert claims.scopes == frozenset()


def test_scopes_of_the_api_mean_nothing_at_a_models_own_host() -> None:
    claims = OURS.verify(signed({**payload_of(FOR_APP, APP_HOST, NOW), "scope": "models:write admin"}), APP_HOST, NOW)

    assert claims is not None
    assert claims.scopes == frozenset()


@pytest.mark.parametrize("attack", list(attacks(SERVER)), ids=lambda attack: f"{attack.name[:60]} at {attack.audience}")
def test_every_attack_is_refused(attack: tuple[str, str, str]) -> None:
    _, token, audience = attack

    assert OURS.verify(token, audience, NOW) is None


def test_the_attacks_are_many_and_no_two_are_the_same() -> None:
    made = list(attacks(SERVER))

    assert len(made) == len(CASES) > 300
    assert len({attack.token for attack in made}) == len(made)
    assert GOOD not in {attack.token for attack in made}


def test_an_attack_that_changes_nothing_passes_so_that_the_corpus_tests_what_it_says() -> None:
    assert OURS.verify(good(SERVER), API, NOW) is not None
    assert OURS.verify(good(SERVER, APP_HOST), APP_HOST, NOW) is not None
    trusting = verifier(k1=jwk(KEY, "k1"), k0=jwk(RETIRED, "k0"))
    retired = next(attack for attack in attacks(SERVER) if attack.name == "signed by a key that was retired, under its own kid")
    assert trusting.verify(retired.token, API, NOW) is not None


def test_no_flipped_bit_of_any_part_goes_unseen() -> None:
    parts = GOOD.split(".")
    for place, part in enumerate(parts):
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            changed = [*parts[:place], encoded(bytes(flipped)), *parts[place + 1 :]]
            assert OURS.verify(".".join(changed), API, NOW) is None, (place, bit)


def test_no_letter_of_the_text_can_be_another_one() -> None:
    for at, letter in enumerate(GOOD):
        for other in {"A", "_", "-", "+", "=", " ", ".", "\x00", "é", forge.LETTERS[at % 64]} - {letter}:
            assert OURS.verify(GOOD[:at] + other + GOOD[at + 1 :], API, NOW) is None, (at, other)
        assert OURS.verify(GOOD[:at] + GOOD[at + 1 :], API, NOW) is None, at
        assert OURS.verify(GOOD[: at + 1], API, NOW) is None or at == len(GOOD) - 1


@pytest.mark.parametrize(
    ("changed", "is_good"),
    [
        ({"exp": NOW - LEEWAY_S + 0.5}, True),
        ({"exp": NOW - LEEWAY_S}, False),
        ({"iat": NOW + LEEWAY_S}, True),
        ({"iat": NOW + LEEWAY_S + 0.5}, False),
        ({"nbf": NOW + LEEWAY_S}, True),
        ({"nbf": NOW + LEEWAY_S + 0.5}, False),
        ({"exp": NOW + LONGEST_LIFE_S[API]}, True),
        ({"exp": NOW + LONGEST_LIFE_S[API] + 0.5}, False),
        ({"exp": int(NOW) + 5}, True),
        ({"epoch": 0}, True),
        ({"epoch": 2**53 - 1}, True),
        ({"epoch": 2**53}, False),
        ({"sub": "a" * 64}, True),
        ({"sub": "a" * 65}, False),
        ({"name": "a" * 40}, True),
    ],
)
def test_the_borders(changed: dict[str, object], is_good: bool) -> None:  # noqa: FBT001 - a column of the table
    token = signed({**PAYLOAD, "iat": NOW - 300 if "exp" in changed and changed["exp"] < NOW else NOW, "nbf": NOW - 300, **changed})  # type: ignore[operator]

    assert (OURS.verify(token, API, NOW) is not None) is is_good


def test_a_token_for_a_models_own_host_may_live_a_day_and_no_longer() -> None:
    day = LONGEST_LIFE_S[APP_HOST]

    assert OURS.verify(signed(payload_of(replace(FOR_APP, expires_at=NOW + day), APP_HOST, NOW)), APP_HOST, NOW) is not None
    assert OURS.verify(signed(payload_of(replace(FOR_APP, expires_at=NOW + day + 1), APP_HOST, NOW)), APP_HOST, NOW) is None


def test_a_token_is_dead_a_minute_after_its_end_whenever_it_is_asked() -> None:
    for later in range(0, 1000, 7):
        assert (OURS.verify(GOOD, API, NOW + later) is not None) is (later < 600 + LEEWAY_S), later


def test_an_audience_that_there_is_not_takes_nothing() -> None:
    assert OURS.verify(signed({**PAYLOAD, "aud": "other"}), "other", NOW) is None


def test_the_longest_token_is_read_and_one_letter_more_is_not() -> None:
    padding = LONGEST - len(GOOD)
    longest = next(
        token for size in range(padding // 4 * 3, padding) if len(token := signed({**PAYLOAD, "pad": "a" * (size - 20)})) >= LONGEST - 1
    )

    assert (OURS.verify(longest, API, NOW) is not None) is (len(longest) <= LONGEST)
    assert OURS.verify(longest + "A" * 2, API, NOW) is None


def test_a_key_that_is_trusted_no_more_is_refused_at_once_and_another_one_taken() -> None:
    moving = verifier()
    other = ec.generate_private_key(ec.SECP256R1())
    assert moving.trusts("k1")

    moving.trust({"k2": jwk(other, "k2")})

    assert moving.verify(GOOD, API, NOW) is None
    assert not moving.trusts("k1")
    assert moving.verify(signed(PAYLOAD, other, "k2"), API, NOW) == replace(CLAIMS, key_id="k2")


def test_a_verifier_that_was_told_nothing_trusts_nothing() -> None:
    assert TokenVerifier().verify(GOOD, API, NOW) is None


JWK = jwk(KEY, "k1")
PRIVATE = encoded(KEY.private_numbers().private_value.to_bytes(32, "big"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {**JWK, "d": PRIVATE},
        {**JWK, "kid": "k2"},
        {**JWK, "kty": "oct", "k": "AAAA"},
        {**JWK, "crv": "P-384"},
        {**JWK, "alg": "HS256"},
        {**JWK, "use": "enc"},
        {**JWK, "key_ops": ["verify"]},
        {**JWK, "x": JWK["y"], "y": JWK["x"]},
        {**JWK, "x": encoded(bytes(32)), "y": encoded(bytes(32))},
        {**JWK, "x": str(JWK["x"]) + "="},
        {**JWK, "x": str(JWK["x"])[:-2]},
        {**JWK, "x": encoded(b"\0" + base64.urlsafe_b64decode(str(JWK["x"]) + "="))},
        {**JWK, "x": 1},
        {**JWK, "y": None},
        {**JWK, "y": ["A"]},
        {key: value for key, value in JWK.items() if key != "use"},
        jwk(ec.generate_private_key(ec.SECP384R1()), "k1"),
    ],
    ids=range(18),  # the keys are made anew in each process
)
def test_a_jwk_that_is_not_what_we_write_is_never_trusted(wrong: dict[str, object]) -> None:
    assert not verifier(k1=wrong).trusts("k1")
    assert verifier(k1=wrong, k2=jwk(KEY, "k2")).trusts("k2")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.text() | st.lists(st.text(forge.LETTERS, max_size=200), min_size=1, max_size=5).map(".".join))
def test_no_text_is_a_token_and_none_raises(text: str) -> None:
    assert OURS.verify(text, API, NOW) is None


@given(st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=70))
def test_no_bytes_are_a_token_and_none_raise(header: bytes, payload: bytes, signature: bytes) -> None:
    assert OURS.verify(f"{encoded(header)}.{encoded(payload)}.{encoded(signature)}", API, NOW) is None


@given(st.dictionaries(st.sampled_from([*PAYLOAD, "model"]), JSON, min_size=1, max_size=3))
def test_whatever_a_signed_payload_holds_it_is_read_in_full_or_not_at_all(changed: dict[str, object]) -> None:
    header = encoded(json.dumps({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}).encode())
    message = f"{header}.{encoded(json.dumps({**PAYLOAD, **changed}).encode())}"

    claims = OURS.verify(f"{message}.{encoded(raw(KEY, message.encode()))}", API, NOW)
    assert claims is None or payload_of(claims, API, NOW).keys() == PAYLOAD.keys()


@given(JSON)
def test_whatever_a_header_is_it_never_raises(header: object) -> None:
    message = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(PAYLOAD).encode())}"

    assert OURS.verify(f"{message}.{encoded(raw(KEY, message.encode()))}", API, NOW) is None


@pytest.mark.parametrize("depth", [100, 900, 1400])
def test_brackets_without_end_do_not_reach_the_stack(depth: int) -> None:
    for text in ("[" * depth, "[" * depth + "]" * depth, '{"a":' * (depth // 5)):
        message = f"{encoded(text.encode())}.{encoded(text.encode())}"
        assert OURS.verify(f"{message}.{encoded(raw(KEY, message.encode()))}", API, NOW) is None


def test_vectors_of_wycheproof(wycheproof: Path) -> None:
    """Each is a JWS and not one of our tokens: all are refused, and below the claims the signature decides as the vectors say."""
    groups = json.loads(wycheproof.read_text())["testGroups"]
    tried = 0
    for group in groups:
        public = group.get("public", {})
        kid = str(public.get("kid"))
        trusting = verifier(**{kid: public})
        for test in group["tests"]:
            assert trusting.verify(str(test["jws"]), API, NOW) is None, test
            if trusting.trusts(kid):
                tried += 1
                assert _is_signed(trusting, kid, str(test["jws"])) is (test["result"] == "valid"), test

    assert tried


def _is_signed(trusting: TokenVerifier, kid: str, text: str) -> bool:
    try:
        tokens._JWS.decode(text, trusting._keys[kid], algorithms=[tokens.ALGORITHM])
    except jwt.PyJWTError:
        return False
    return True


def test_the_same_moment_gives_every_token_an_id_of_its_own(scaled: Callable[[int], int]) -> None:
    ids = [payload_of(CLAIMS, API, NOW)["jti"] for _ in range(scaled(1000))]

    assert len(set(ids)) == len(ids)
