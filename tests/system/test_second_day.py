"""The server's second day: stopped or killed, and started again on the same folder, it goes on where it was."""

import json
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from yard import Yard, marked, until, zipped

APP = b"""
import http.server, os, signal

class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

if STUBBORN:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("it boots")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def app(idle: str = "", *, stubborn: bool = False) -> bytes:
    """An app of the standard library alone; a stubborn one ignores SIGTERM."""
    settings = f'[app]\ncommand = "python app.py"\n{idle}'
    return zipped({"app.py": f"STUBBORN = {stubborn}\n".encode() + APP, "modelyard.toml": settings.encode()})


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server that looks around often, and that these tests end and start again."""
    with Yard(tmp_path_factory.mktemp("days") / "data", *flags, variables={"MODELYARD_RUN__LOOK_EVERY_S": "0.2"}) as running:
        yield running


def told(yard: Yard, name: str) -> list[tuple[str, str | None]]:
    """The runner's events of a model, in their order, with their reasons."""
    with sqlite3.connect(yard.data / "modelyard.db") as connection:
        values = [json.loads(value) for (value,) in connection.execute("select value from outbox order by seq")]
    kinds = {"model.started", "model.stopped", "model.crashed"}
    return [(each["event"], each["data"].get("reason")) for each in values if each["event"] in kinds and each["data"]["model_name"] == name]


def named(folder: Path, word: str) -> list[Path]:
    """What in the folder has this word in its name."""
    # By `walk`: the server makes and removes folders meanwhile.
    found = (Path(base, name) for base, folders, files in os.walk(folder) for name in (*folders, *files) if word in name)
    return [path for path in found if "uv-cache" not in path.parts]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["end", "kill"])
def test_the_first_call_of_the_next_day_is_answered(yard: Yard, ending: str) -> None:
    awake, asleep = f"awake-{ending}", f"asleep-{ending}"
    ids = [yard.ready("days", awake, app())["id"], yard.ready("days", asleep, app("[idle]\nfreeze_s = 0.1\n"))["id"]]
    for name in (awake, asleep):
        assert yard.http.get(f"/m/days/{name}/").status_code == 200
    until(lambda: yard.state("days", asleep) == "frozen", "the idle one is frozen")
    token = yard.token
    if ending == "end":
        assert yard.end() == 0
    else:
        yard.kill()
    until(lambda: not any(marked(f"app-{each}") for each in ids), "no app outlives its server")

    yard.start()
    assert yard.token == token
    for name in (asleep, awake):
        answer = yard.http.get(f"/m/days/{name}/")
        assert (answer.status_code, answer.text) == (200, "ok")
        assert "boot" in answer.headers["server-timing"]
        assert told(yard, name) == [("model.started", None), ("model.stopped", "runner_gone"), ("model.started", None)]
    with sqlite3.connect(yard.data / "modelyard.db") as connection:
        assert connection.execute("select sum(crashes), max(next_start_at) from instances").fetchone() == (0, 0)


@pytest.mark.slow
def test_a_deletion_that_was_cut_short_is_finished(yard: Yard) -> None:
    taken = yard.ready("days", "cut", app(stubborn=True))
    assert yard.http.get("/m/days/cut/").text == "ok"
    path, headers = f"{yard.url}/models/{taken['id']}?purge=true", dict(yard.http.headers)
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(lambda: httpx2.delete(path, headers=headers, timeout=60))
        until(lambda: yard.http.get("/models/days/cut").status_code == httpx2.codes.NOT_FOUND, "the deletion has begun")
        yard.kill()
        with pytest.raises(httpx2.HTTPError):
            deleting.result(30)
    assert (yard.data / "apps" / taken["id"]).exists()

    yard.start()
    until(lambda: not named(yard.data, taken["id"]), "nothing is left that has its name")
    assert yard.http.get("/m/days/cut/").status_code == 404
    assert marked(taken["id"]) == []


@pytest.mark.slow
def test_a_purge_takes_the_output_of_all_versions_also_of_yesterday_s(yard: Yard) -> None:
    first = yard.ready("days", "purged", app())
    assert yard.http.get("/m/days/purged/").text == "ok"
    second = yard.ready("days", "purged", app("# the second\n"))
    until(lambda: (yard.http.get("/m/days/purged/").text, marked(f"app-{first['id']}")) == ("ok", []), "the second version took over")
    output = yard.data / "output"
    until(lambda: len(named(output, first["id"])) == len(named(output, second["id"])) == 1, "both have printed")
    assert yard.http.delete(f"/models/{first['id']}").json()["bytes_kept"] > 0
    assert named(yard.data, first["id"]) == []
    yard.end()
    yard.start()

    blobs = len(list((yard.data / "blobs").iterdir()))
    gone = yard.http.delete("/models/days/purged?purge=true")
    assert (gone.status_code, gone.json()["status"], gone.json()["bytes_kept"]) == (200, "deleted", 0)
    assert named(yard.data, second["id"]) == []
    assert len(list((yard.data / "blobs").iterdir())) == blobs - 2
