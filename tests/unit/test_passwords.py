"""Passwords: which may be chosen, what is kept of them, and how many are computed at a time."""

import unicodedata
from pathlib import Path

import pytest

import auth_service
from auth_service.passwords import COST, LONGEST, Cost, Passwords
from modelyard.domain.errors import Invalid, Limited

CHEAP = Cost(memory_kib=8, passes=1, lanes=1)
GOOD = "four tall green words"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(2, CHEAP, wait_s=0.01)


def test_the_cost_is_what_safety_asks_for() -> None:
    kept = Passwords(1).hash(GOOD, "ada")

    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert Cost(64 * 1024, 3, 4) == COST


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_short"),
        ("seven77", "password_short"),
        ("ﬁ" * 3, "password_short"),  # six characters once they are normalised
        ("a" * 7 + "\u0301", "password_short"),  # a letter and its accent are one
        ("x1" * 129, "password_long"),
        ("ab" * 100_000, "password_long"),
        ("\ufdfa" * 20, "password_long"),  # one sign becomes eighteen
        ("password", "password_known"),
        ("PassWord123", "password_known"),
        ("1q2w3e4r", "password_known"),
        ("\uff30assword1", "password_known"),  # a wide letter, as some keyboards type it
        ("correct horse battery staple", "password_known"),
        ("zzzzzzzzzzzzzz", "password_known"),
        ("testuser", "password_is_name"),
        ("TestUser", "password_is_name"),
        ("testuser123", "password_is_name"),
        ("testusertestuser", "password_is_name"),
        ("\ud800 all alone", "password_untypable"),  # a form is UTF-8, which has no halves
    ],
)
def test_what_everybody_would_guess_is_refused(passwords: Passwords, password: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.hash(password, "testuser")

    assert (refused.value.code, refused.value.errors[0]["field"]) == (code, "password")
    assert password in {"", "password"} or password not in f"{refused.value.message} {refused.value.mend}"


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "Ω≈ç√∫≤≥ß",
        "x1" * (LONGEST // 2),
        " leading and trailing ",
        "testuser-but-more",
        "пароль-из-слов",
        "\x00null ok",
    ],
)
def test_anything_else_is_taken_and_known_again(passwords: Passwords, password: str) -> None:
    kept = passwords.hash(password, "testuser")

    assert passwords.check(password, kept).right
    assert not passwords.check(password + "x", kept).right
    assert not passwords.check(password[:-1], kept).right


def test_a_name_of_one_letter_does_not_forbid_the_letter(passwords: Passwords) -> None:
    assert passwords.hash("banana bread", "a")


def test_keyboards_may_compose_letters_as_they_like(passwords: Passwords) -> None:
    word = "Äpfel im Körbchen"
    kept = passwords.hash(unicodedata.normalize("NFD", word), "ada")

    assert passwords.check(unicodedata.normalize("NFC", word), kept).right
    assert not passwords.check("Apfel im Korbchen", kept).right


def test_where_nothing_is_kept_nothing_is_right(passwords: Passwords) -> None:
    assert not passwords.check(GOOD, None).right
    assert not passwords.check("", None).right
    assert not passwords.check("x" * 10_000_000, None).right


def test_who_has_no_password_costs_as_much_as_who_has_one(passwords: Passwords) -> None:
    kept = passwords.hash(GOOD, "ada")
    nobodys = passwords._nobodys

    parts = [(text.split("$")[1:4], *(len(part) for part in text.split("$")[4:])) for text in (kept, nobodys)]
    assert parts[0] == parts[1]


def test_a_hash_of_older_parameters_is_made_anew_once_it_was_right(passwords: Passwords) -> None:
    kept = passwords.hash(GOOD, "ada")
    later = Passwords(1, Cost(memory_kib=16, passes=2, lanes=1))

    assert passwords.check(GOOD, kept).fresh is None
    assert later.check("wrong wrong wrong", kept).fresh is None
    fresh = later.check(GOOD, kept).fresh
    assert fresh is not None
    assert fresh.startswith("$argon2id$v=19$m=16,t=2,p=1$")
    assert later.check(GOOD, fresh) == passwords.check(GOOD, kept)


def test_beyond_a_few_at_once_the_next_one_waits_and_is_then_told_to_come_again(passwords: Passwords) -> None:
    with passwords._turn(), passwords._turn():
        for attempt in (lambda: passwords.check(GOOD, None), lambda: passwords.hash(GOOD, "ada")):
            with pytest.raises(Limited) as refused:
                attempt()
            assert (refused.value.code, refused.value.retry_after_s) == ("busy", 2)

    assert passwords.hash(GOOD, "ada")


def test_the_list_of_known_passwords_is_as_it_is_compared() -> None:
    words = (Path(auth_service.__file__).parent / "known_passwords.txt").read_text("utf-8").splitlines()

    assert len(words) >= 300
    assert len(words) == len(set(words))
    assert all(word == unicodedata.normalize("NFKC", word).casefold() and 8 <= len(word) <= LONGEST for word in words)
