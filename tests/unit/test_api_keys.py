"""API keys: their form, their checksum, and what is not one."""

import re

import pytest

from modelyard.domain.api_keys import ApiKey, new_key, parse_key

KEY = ApiKey("abcdefghijkl", "A" * 40)


def test_a_key_has_the_form_that_secret_scanners_find_and_reads_back() -> None:
    made = new_key()

    assert re.fullmatch(r"my_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}_[0-9a-f]{8}", made.text)
    assert parse_key(made.text) == made


def test_a_key_of_the_first_version_is_read_for_ever() -> None:
    told = "my_abcdefghijkl_" + "A" * 40 + "_9303c00c"

    assert (KEY.text, parse_key(told)) == (told, KEY)


def test_each_mistyped_letter_is_told_by_the_checksum() -> None:
    text = KEY.text
    for at in range(3, len(text)):
        for letter in "b0":
            wrong = text[:at] + letter + text[at + 1 :]
            if wrong != text:
                assert parse_key(wrong) is None, wrong


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my",
        "my___",
        KEY.text[3:],
        "xx" + KEY.text[2:],
        KEY.text + "_",
        KEY.text + "\n",
        KEY.text.upper(),
        KEY.text.replace("A", "Ä", 1),
        " " + KEY.text,
    ],
)
def test_what_is_not_a_key_is_none(text: str) -> None:
    assert parse_key(text) is None


def test_two_keys_are_the_same_by_id_and_secret() -> None:
    assert KEY.matches(ApiKey("abcdefghijkm", KEY.secret).sha256)
    assert not KEY.matches(ApiKey(KEY.id, "B" * 40).sha256)
    assert not KEY.matches("")


def test_a_key_does_not_print_its_secret() -> None:
    assert KEY.secret not in repr(KEY)
    assert KEY.secret not in f"{KEY}"
