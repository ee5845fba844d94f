"""The judge of histories itself: it passes what is whole, and names each kind of fault by its subject."""

from dataclasses import replace
from pathlib import Path

import pytest
from history import planted
from history.checker import Fault, Kind, judge, story
from history.facts import Attempt, Build, Found, History, Kill, Sent, Version, Written

FIRST = Version("v-1", "m-1", "ada/fruit", 1, "sha-1", "ready", "env")
SECOND = Version("v-2", "m-1", "ada/fruit", 2, "sha-2", "ready", "env")
OTHER = Version("v-3", "m-2", "ada/pears", 1, "sha-3", "ready", "env")

WHOLE = Found(
    versions=(FIRST, SECOND, OTHER),
    builds=(
        Build("b-0", "v-1", "failed"),
        Build("b-1", "v-1", "succeeded"),
        Build("b-2", "v-2", "succeeded"),
        Build("b-3", "v-3", "succeeded"),
    ),
    events=(
        Written(1, "e-0", "m-1", "model.build_failed", "v-1"),
        Written(2, "e-1", "m-1", "model.uploaded", "v-1"),
        Written(4, "e-3", "m-2", "model.uploaded", "v-3"),
        Written(5, "e-2", "m-1", "model.uploaded", "v-2"),
        Written(6, "e-4", "m-1", "model.released", "v-2"),
    ),
    records=(
        Sent(0, 0, "e-0", "m-1"),
        Sent(0, 1, "e-1", "m-1"),
        Sent(1, 0, "e-3", "m-2"),
        Sent(0, 2, "e-0", "m-1"),
        Sent(0, 3, "e-2", "m-1"),
        Sent(0, 4, "e-4", "m-1"),
        Sent(0, 5, "e-2", "m-1"),
    ),
    acts={"v-1": 1, "v-2": 1, "v-3": 1},
    effects={"e-0": 1, "e-1": 1, "e-2": 1, "e-3": 1, "e-4": 1},
    wanted=frozenset({"v-2", "v-3"}),
    running=frozenset({"v-3"}),
    processes=frozenset({"v-3"}),
    blobs=frozenset({"sha-1", "sha-2", "sha-3"}),
    apps=frozenset({"v-1", "v-2", "v-3"}),
    environments=frozenset({"env"}),
)
HISTORY = History(
    attempts=(
        Attempt("k-1", "ada/fruit", "sha-1", 0.0, 0, "ReadError()"),
        Attempt("k-1", "ada/fruit", "sha-1", 0.5, 409, "in_flight"),
        Attempt("k-1", "ada/fruit", "sha-1", 1.0, 202, "v-1"),
        Attempt("k-2", "ada/fruit", "sha-2", 1.5, 202, "v-2"),
        Attempt("k-2", "ada/fruit", "sha-2", 2.0, 202, "v-2"),
        Attempt("k-3", "ada/pears", "sha-3", 2.5, 202, "v-3"),
    ),
    kills=(Kill(0.2, "upload", 7), Kill(200.0, "auth", 8)),
    answers=(("ada/fruit", "k-1"), ("ada/pears", "k-3")),
)


def without_event(event_id: str) -> Found:
    return replace(
        WHOLE,
        events=tuple(each for each in WHOLE.events if each.id != event_id),
        records=tuple(each for each in WHOLE.records if each.event_id != event_id),
        effects={each: count for each, count in WHOLE.effects.items() if each != event_id},
    )


def with_event(event: Written) -> Found:
    sent = Sent(0, 6, event.id, event.key)
    return replace(WHOLE, events=(*WHOLE.events, event), records=(*WHOLE.records, sent), effects={**WHOLE.effects, event.id: 1})


def with_version(version: Version, of: Version) -> Found:
    """The same, with this row in the place of another one."""
    return replace(WHOLE, versions=tuple(version if each is of else each for each in WHOLE.versions))


def test_what_is_whole_passes_though_records_came_twice_and_answers_were_lost() -> None:
    assert judge(HISTORY, WHOLE) == []


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (with_version(replace(OTHER, sha256="sha-9"), OTHER), Fault(Kind.LOST, "k-3")),
        (with_version(replace(OTHER, sha256="sha-9"), OTHER), Fault(Kind.UNASKED, "v-3")),
        (with_version(replace(OTHER, state="building"), OTHER), Fault(Kind.UNREADY, "k-3")),
        (with_version(replace(OTHER, id="v-9"), OTHER), Fault(Kind.UNTRUE_ANSWER, "k-3")),
        (replace(WHOLE, versions=(*WHOLE.versions, replace(OTHER, id="v-9"))), Fault(Kind.DOUBLED, "k-3")),
        (replace(WHOLE, acts={**WHOLE.acts, "v-2": 2}), Fault(Kind.DOUBLED, "v-2")),
        (replace(WHOLE, acts={"v-1": 1, "v-3": 1}), Fault(Kind.UNNOTED, "v-2")),
        (replace(WHOLE, flaw="7: not what was written"), Fault(Kind.UNCHAINED, "7: not what was written")),
        (without_event("e-3"), Fault(Kind.UNTOLD, "v-3")),
        (without_event("e-0"), Fault(Kind.UNTOLD, "v-1")),
        (with_event(Written(7, "e-9", "m-2", "model.uploaded", "v-3")), Fault(Kind.TOLD_TWICE, "v-3")),
        (with_event(Written(7, "e-9", "m-2", "model.build_failed", "v-3")), Fault(Kind.UNTRUE, "v-3")),
        (with_event(Written(7, "e-9", "m-9", "model.started", "v-9")), Fault(Kind.UNTRUE, "v-9")),
        (replace(WHOLE, records=WHOLE.records[:2] + WHOLE.records[3:]), Fault(Kind.UNSENT, "e-3")),
        (replace(WHOLE, records=(*WHOLE.records, Sent(1, 1, "e-9", "m-2"))), Fault(Kind.UNWRITTEN, "e-9")),
        (replace(WHOLE, records=(*WHOLE.records[:3], Sent(0, 2, "e-4", "m-1"), *WHOLE.records[4:])), Fault(Kind.DISORDERED, "m-1")),
        (replace(WHOLE, effects={**WHOLE.effects, "e-3": 0}), Fault(Kind.NO_EFFECT, "e-3")),
        (replace(WHOLE, effects={**WHOLE.effects, "e-3": 2}), Fault(Kind.EFFECT_DOUBLED, "e-3")),
        (replace(WHOLE, given_up=frozenset({"e-3"})), Fault(Kind.GIVEN_UP, "e-3")),
        (replace(WHOLE, wanted=frozenset({"v-1", "v-2", "v-3"})), Fault(Kind.UNSERVED, "v-1")),
        (replace(WHOLE, wanted=frozenset({"v-2"})), Fault(Kind.UNSERVED, "v-3")),
        (replace(WHOLE, processes=frozenset({"v-2", "v-3"})), Fault(Kind.ORPHAN, "v-2")),
        (replace(WHOLE, processes=frozenset()), Fault(Kind.MISSING, "v-3")),
        (replace(WHOLE, blobs=WHOLE.blobs | {"sha-9"}), Fault(Kind.ORPHAN, "sha-9")),
        (replace(WHOLE, blobs=WHOLE.blobs - {"sha-1"}), Fault(Kind.MISSING, "sha-1")),
        (replace(WHOLE, apps=WHOLE.apps | {"v-9"}), Fault(Kind.ORPHAN, "v-9")),
        (replace(WHOLE, apps=WHOLE.apps - {"v-1"}), Fault(Kind.MISSING, "v-1")),
        (replace(WHOLE, environments=WHOLE.environments | {"old"}), Fault(Kind.ORPHAN, "old")),
        (replace(WHOLE, environments=frozenset()), Fault(Kind.MISSING, "env")),
        (replace(WHOLE, left=frozenset({"staging/x"})), Fault(Kind.ORPHAN, "staging/x")),
    ],
    ids=lambda each: each.kind.name.lower() if isinstance(each, Fault) else "",
)
def test_each_fault_is_found_and_named(found: Found, fault: Fault) -> None:
    assert fault in judge(HISTORY, found)


@pytest.mark.parametrize(
    ("attempt", "fault"),
    [
        (Attempt("k-4", "ada/plums", "sha-4", 3.0, 202, "v-4"), Fault(Kind.LOST, "k-4")),
        (Attempt("k-4", "ada/plums", "sha-4", 3.0, 0, "ReadError()"), Fault(Kind.LOST, "k-4")),
        (Attempt("k-3", "ada/pears", "sha-3", 3.0, 202, "v-9"), Fault(Kind.DOUBLED, "k-3")),
    ],
    ids=["acknowledged", "unanswered", "another version"],
)
def test_an_answer_that_nothing_in_the_store_bears_out_is_a_fault(attempt: Attempt, fault: Fault) -> None:
    assert judge(replace(HISTORY, attempts=(*HISTORY.attempts, attempt)), WHOLE) == [fault]


def test_an_answer_of_a_model_that_was_never_uploaded_there_is_a_fault() -> None:
    assert judge(replace(HISTORY, answers=(("ada/pears", "k-1"),)), WHOLE) == [Fault(Kind.UNTRUE_ANSWER, "k-1")]


def test_the_same_bytes_by_another_key_are_the_same_version() -> None:
    again = replace(HISTORY, attempts=(*HISTORY.attempts, Attempt("k-3-1", "ada/pears", "sha-3", 9.0, 202, "v-3")))
    assert judge(again, replace(WHOLE, acts={**WHOLE.acts, "v-3": 2})) == []


def test_the_story_of_a_key_is_all_that_is_known_of_it_in_the_order_of_time() -> None:
    told = story(HISTORY, WHOLE, "k-1").splitlines()
    assert [line.split("(")[0].strip() for line in told] == [
        "Attempt",
        "Kill",
        *["Attempt"] * 2,
        "Version",
        *["Build"] * 2,
        *["Written"] * 2,
        *["Sent"] * 3,
        *["effect of e-0: 1 times", "effect of e-1: 1 times"],
    ]
    assert "v-2" not in "".join(told)
    assert story(HISTORY, WHOLE, "e-1").splitlines()[-1] == story(HISTORY, WHOLE, "v-1").splitlines()[-1] == "  effect of e-1: 1 times"


def test_the_product_knows_nothing_of_the_bugs_that_are_planted() -> None:
    root = Path(__file__).parents[2]
    packages = ("modelyard", "auth_service", "upload_service", "inference_service", "gateway")
    modules = [path for package in packages for path in (root / package).rglob("*.py")]
    words = (planted.HERE, "tests.history", "import planted", *(f'"{bug}"' for bug in planted.BUGS))
    assert len(modules) > len(packages)
    assert [(path.name, word) for path in modules for word in words if word in path.read_text()] == []
