"""Names and ids: what the rule takes, what it refuses, and what it proposes instead."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain.errors import Invalid
from modelyard.domain.ids import RESERVED, is_digest, is_name, new_id, parse_model_name, parse_owner, suggest


@pytest.mark.parametrize("name", ["a", "7", "ada", "test-model", "a1-b2-c3", "x" * 40, "a" + "b" * 38 + "c"])
def test_a_name_of_the_rule_is_taken_as_it_is(name: str) -> None:
    assert parse_owner(name) == name
    assert parse_model_name(name) == name


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("", "model"),
        ("Ada", "ada"),
        ("-ada", "ada"),
        ("ada-", "ada"),
        ("a--b", "a-b"),
        ("test_model", "test-model"),
        ("my model!", "my-model"),
        ("x" * 41, "x" * 40),
        ("../etc", "etc"),
        ("a/b", "a-b"),
        ("ada\n", "ada"),
        ("ä", "model"),
        ("a" * 39 + "-b", "a" * 39),
        ("٣", "model"),
    ],
)
def test_any_other_name_is_refused_with_a_proposal_that_would_pass(name: str, proposed: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_model_name(name)

    assert refused.value.code == "name_invalid"
    assert refused.value.errors[0]["field"] == "model_name"
    assert refused.value.errors[0]["suggestion"] == proposed
    assert is_name(proposed)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_none_for_an_owner_and_one_for_a_model(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_owner(name)

    assert refused.value.code == "name_reserved"
    assert parse_model_name(name) == name
    # What the mend proposes passes.
    proposed = re.search(r"for example (\S+)\.$", refused.value.mend)
    assert proposed is not None
    assert parse_owner(proposed[1])


@given(st.text(max_size=80))
def test_every_text_has_a_proposal_that_follows_the_rule(text: str) -> None:
    assert is_name(suggest(text))


def test_ids_are_uuids_of_version_7_and_sort_by_their_time() -> None:
    made = [new_id() for _ in range(2000)]

    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", each) for each in made)
    stamps = [each[:13] for each in made]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize(
    ("text", "is_one"), [("0" * 64, True), ("A" * 64, False), ("0" * 63, False), ("0" * 65, False), ("0" * 64 + "\n", False)]
)
def test_a_digest_is_64_lower_case_hex_digits(text: str, *, is_one: bool) -> None:
    assert is_digest(text) is is_one
