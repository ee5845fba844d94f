"""Problem documents: their members, their statuses, and what a 404 never says."""

import json

import pytest

from modelyard.domain.errors import Invalid, Kind, Limited, ModelyardError, NotFound, NotReady, Unauthenticated
from modelyard.web import problems


def test_every_kind_has_a_status_and_every_status_a_title() -> None:
    assert set(problems.STATUS) == set(Kind)
    assert set(problems.STATUS.values()) <= set(problems.TITLES)


def test_a_document_has_the_members_of_the_rfc_and_ours() -> None:
    error = Invalid("name_invalid", "The username is wrong.", "Try 'ada'.", errors=[{"field": "username", "message": "wrong"}])

    assert problems.document(error, "/upload", "r-1") == {
        "type": "urn:modelyard:problem:name_invalid",
        "title": "Refused",
        "status": 422,
        "detail": "The username is wrong.",
        "code": "name_invalid",
        "mend": "Try 'ada'.",
        "instance": "/upload",
        "request_id": "r-1",
        "errors": [{"field": "username", "message": "wrong"}],
    }


def test_a_404_tells_nothing_that_differs_from_request_to_request() -> None:
    one, other = problems.document(NotFound(), "/models/ada/fruit", "r-1"), problems.document(NotFound(), "/builds/7", "r-2")

    assert one == other
    assert not {"instance", "request_id"} & set(one)


def test_further_members_stand_in_the_document_and_the_pause_in_a_header() -> None:
    error = NotReady("model_starting", "Starting.", "Call again.", extra={"state": "starting", "phase": "boot"}, retry_after_s=2)
    told = problems.document(error, "/m/ada/fruit/", "r")

    assert (told["status"], told["state"], told["phase"]) == (503, "starting", "boot")
    assert problems.headers(error)["retry-after"] == "2"


@pytest.mark.parametrize(
    ("error", "extra"),
    [
        (Unauthenticated("no_credential", "x"), {"www-authenticate": 'Bearer realm="modelyard"'}),
        (Limited("limited", "x", retry_after_s=7), {"retry-after": "7"}),
        (NotFound(), {}),
    ],
)
def test_headers_belong_to_the_kind_of_answer(error: ModelyardError, extra: dict[str, str]) -> None:
    assert problems.headers(error) == {"content-type": "application/problem+json", "cache-control": "no-store", **extra}


def test_what_the_web_framework_decides_has_our_words_and_its_own_status() -> None:
    told = {status: error for status in (400, 404, 405, 500, 418) if (error := problems.from_status(status))}

    assert {status: problems.status_of(error) for status, error in told.items()} == {400: 400, 404: 404, 405: 405}
    assert told[405].code == "method_not_allowed"


def test_a_schema_s_errors_name_their_fields_and_never_the_value() -> None:
    error = problems.from_validation([{"loc": ("query", "purge"), "msg": "not a boolean", "input": "s3cret", "type": "bool"}])

    assert error.errors == ({"field": "query.purge", "message": "not a boolean"},)
    assert b"s3cret" not in problems.encode(problems.document(error, "/x", "r"))


def test_documents_are_utf_8() -> None:
    assert json.loads(problems.encode({"detail": "Früchte"}).decode("utf-8")) == {"detail": "Früchte"}
    assert "Früchte".encode() in problems.encode({"detail": "Früchte"})
