"""A build's log: tame lines without gaps, followed live, and taken up again anywhere."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from stage import Stage

from modelyard.store.tables import BuildLogRow
from upload_service.build_log import LINE_LENGTH, MOST_LINES, BuildLogs
from upload_service.builders import Log
from upload_service.claims import ClaimedBuild


def lines(stage: Stage, build_id: str) -> list[str]:
    return stage.http.get(f"/builds/{build_id}/log").text.splitlines()


def claimed(stage: Stage) -> ClaimedBuild:
    build = stage.claims.claim()
    assert build is not None
    return build


def test_a_log_is_tame_dense_and_bounded(stage: Stage) -> None:
    hostile = ["\x1b[31mred", "two\nlines", "\x00", "tab\tkept", "ä 😀", "x" * (LINE_LENGTH + 5), "\u2028", "\u202egnp.exe"]

    def act(log: Log) -> None:
        for line in hostile:
            log(line)

    stage.builder.acts["install"] = act
    taken = stage.ready()
    with stage.database.read() as session:
        rows = list(session.scalars(select(BuildLogRow).where(BuildLogRow.build_id == taken["build_id"]).order_by(BuildLogRow.n)))

    assert [row.n for row in rows] == list(range(1, len(rows) + 1))
    told = [row.text for row in rows]
    assert told[3:11] == ["�[31mred", "two�lines", "�", "tab\tkept", "ä 😀", "x" * LINE_LENGTH, "�", "�gnp.exe"]


def test_a_log_that_is_too_long_says_so_once(stage: Stage) -> None:
    taken = stage.upload().json()
    build = claimed(stage)
    with stage.database.write() as session:
        session.add(BuildLogRow(build_id=build.id, n=MOST_LINES - 2, at=0.0, text="..."))
    logs = BuildLogs(stage.database, stage.kernel.clock)
    for n in range(5):
        logs.append(build.id, build.fence, f"line {n}")

    assert lines(stage, taken["build_id"])[1:] == ["line 0", "... the log is longer than is kept"]


Event = dict[str, str]


@contextmanager
def stream(url: str, stage: Stage, build_id: str, after: str | None = None) -> Iterator[Iterator[Event]]:
    """The log's server-sent events, parsed by the letter of the specification."""
    headers = {"accept": "text/event-stream", **stage.http.headers} | {"accept": "text/event-stream"}
    if after is not None:
        headers["last-event-id"] = after

    def events(answer: httpx2.Response) -> Iterator[Event]:
        event: Event = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                if name:
                    event[name] = value
            elif event:
                yield event
                event = {}

    with httpx2.Client(base_url=url, headers=headers, timeout=60) as caller, caller.stream("GET", f"/builds/{build_id}/log") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        with closing(events(answer)) as seen:
            yield seen


def test_a_reader_sees_lines_as_they_are_written_and_then_the_end(stage: Stage) -> None:
    gates = [threading.Event() for _ in range(3)]

    def act(log: Log) -> None:
        for n, gate in enumerate(gates):
            assert gate.wait(60)
            log(f"slow line {n}")

    stage.builder.acts["install"] = act
    taken = stage.upload().json()
    with stage.live("builds") as url, stream(url, stage, taken["build_id"]) as seen:
        told: list[Event] = []
        for n, gate in enumerate(gates):
            gate.set()
            while not told or f"slow line {n}" not in told[-1]["data"]:
                told.append(next(seen))
        told += list(seen)

    *log, end = told
    assert [each["event"] for each in log] == ["log"] * len(log)
    assert [int(each["id"]) for each in log] == list(range(1, len(log) + 1))
    assert json.loads(log[0]["data"]).keys() == {"n", "at", "text"}
    assert (end["event"], json.loads(end["data"])["status"]) == ("end", "succeeded")
    assert "id" not in end
    assert [json.loads(each["data"])["text"] for each in log] == lines(stage, taken["build_id"])


def test_a_reader_that_comes_again_anywhere_loses_no_line_and_gets_none_twice(stage: Stage, scaled: Callable[[int], int]) -> None:
    count = scaled(600)
    release = threading.Event()

    def act(log: Log) -> None:
        for n in range(count):
            log(f"line {n}")
            if n == count // 2:
                assert release.wait(60)

    stage.builder.acts["install"] = act
    taken = stage.upload().json()
    got: list[Any] = []
    after: str | None = None
    with stage.live("builds") as url:
        for reach in range(1, 1000):
            with stream(url, stage, taken["build_id"], after) as seen:
                # Each visit reads some lines, then breaks the connection off.
                for event, _ in zip(seen, range(1 + reach * 7 % 11), strict=False):
                    if event["event"] == "end":
                        break
                    after = event["id"]
                    got.append(json.loads(event["data"]))
                    if f"line {count // 4}" == got[-1]["text"]:
                        release.set()
                else:
                    continue
                break

    assert [line["n"] for line in got] == list(range(1, len(got) + 1))
    assert [line["text"] for line in got] == lines(stage, taken["build_id"])
    assert sum(line["text"].startswith("line ") for line in got) == count


@pytest.fixture(scope="module")
def built(prepare_stage: Callable[..., Stage]) -> tuple[Stage, str]:
    """A stage, and a build on it that has ended."""
    stage = prepare_stage()
    return stage, stage.ready()["build_id"]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "²", "9" * 30, "9" * 5000])
def test_an_odd_last_event_id_breaks_nothing(built: tuple[Stage, str], after: str) -> None:
    stage, build_id = built
    headers = [(b"accept", b"text/event-stream"), (b"last-event-id", after.encode())]
    answer = stage.http.get(f"/builds/{build_id}/log", headers=headers)

    assert answer.status_code == 200
    assert answer.text.count("event: log") == len(lines(stage, build_id))
    assert answer.text.count("event: end") == 1


def test_a_reader_of_a_build_that_waits_is_let_go_when_the_process_drains(stage: Stage) -> None:
    taken = stage.upload().json()
    with stage.live() as url, stream(url, stage, taken["build_id"]) as seen:
        stage.kernel.stopping.set()
        assert list(seen) == []
