"""Errors of the domain: each has a kind of its own, a stable code, a message and a mend."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from modelyard.domain import errors
from modelyard.domain.errors import Kind, ModelyardError, NotFound

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("modelyard", "auth_service", "upload_service", "inference_service", "gateway")
CLASSES = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ModelyardError) and each is not ModelyardError
]
NAMES = {each.__name__ for each in CLASSES} - {"NotFound"} | {"ModelyardError", "BuildError"}


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place where an error is made with its words written down."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_kind_but_internal_has_one_class() -> None:
    assert sorted(each.kind for each in CLASSES) == sorted(set(Kind) - {Kind.INTERNAL})


def test_every_error_in_the_code_has_a_code_in_snake_case_and_a_message() -> None:
    places = list(raised())
    bare = [where for where, call in places if len(call.args) < len(("code", "message"))]
    codes = {(where, call.args[0].value) for where, call in places if isinstance(call.args[0], ast.Constant)}

    assert bare == []
    assert [(where, code) for where, code in codes if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", code)] == []
    assert len(codes) > 50


def test_what_is_missing_and_what_is_hidden_have_the_same_words() -> None:
    one, other = NotFound(), NotFound()

    assert (one.code, one.message, one.mend, one.errors, one.extra) == (other.code, other.message, other.mend, other.errors, other.extra)
    assert one.mend


def test_an_error_keeps_copies_of_what_it_was_given() -> None:
    entry = {"field": "username", "message": "reserved"}
    extra: dict[str, str | int | float | bool | None] = {"phase": "boot"}
    error = ModelyardError("odd", "Odd.", errors=[entry], extra=extra, retry_after_s=3)
    entry["field"], extra["phase"] = "other", "other"

    assert error.errors == ({"field": "username", "message": "reserved"},)
    assert error.extra == {"phase": "boot"}
    assert (str(error), error.retry_after_s) == ("Odd.", 3)
