"""The guide's journey through a real server: upload, list, call, delete; and what is left afterwards: nothing."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from yard import FLASK, Yard, flask_app, marked, until, zipped

GUIDE = Path(__file__).parents[2] / "examples" / "test-model"


def guide_zip() -> bytes:
    return zipped({path.name: path.read_bytes() for path in GUIDE.iterdir() if path.is_file()})


def bus_values(yard: Yard) -> list[bytes]:
    with sqlite3.connect(yard.data / "modelyard.db") as connection:
        return [value for (value,) in connection.execute("select value from bus_records order by at")]


def test_the_guide_by_curl(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "test-model.zip").write_bytes(guide_zip())
    bearer = ["-H", f"Authorization: Bearer {yard.token}"]

    def curl(*words: str) -> dict[str, object]:
        done = subprocess.run(["curl", "-sS", *bearer, *words], capture_output=True, text=True, check=True, cwd=tmp_path)
        return dict(json.loads(done.stdout))

    form = ["-F", "username=testuser", "-F", "model_name=test-model", "-F", "description=A test", "-F", "file=@test-model.zip"]
    taken = curl(*form, f"{yard.url}/upload")
    assert (taken["version"], taken["docker_image"]) == (1, None)
    assert taken["status"] in {"received", "building"}, "a builder may be quicker than the answer"
    ready = curl("-H", "Prefer: wait=300", *form, f"{yard.url}/upload")
    assert (ready["status"], ready["id"], ready["duplicate"]) == ("ready", taken["id"], True)

    listed = curl(f"{yard.url}/models/testuser")["models"]
    assert isinstance(listed, list)
    assert [(each["id"], each["model_name"], each["description"], each["status"]) for each in listed] == [
        (taken["id"], "test-model", "A test", "ready")
    ]
    shown = curl(f"{yard.url}/models/testuser/test-model")
    assert (shown["serving"], shown["state"]) == (1, "stopped")
    assert curl(f"{yard.url}/health")["service"] == "upload_service"

    call = ["-X", "POST", "-H", "Content-Type: application/json", "-d", '{"input": "hello"}']
    assert curl(*call, f"{yard.url}/m/testuser/test-model/predict") == {"prediction": "Processed: hello", "model": "test-model"}
    assert curl(f"{yard.url}/m/testuser/test-model/health") == {"status": "healthy"}

    uploaded = until(lambda: [value for value in bus_values(yard) if b"model.uploaded" in value], "model.uploaded is on the bus")
    told = json.loads(uploaded[0])
    guide = ["upload_id", "username", "model_name", "description", "docker_image", "docker_container_id", "status"]
    assert list(told) == ["event", "data"]
    assert list(told["data"])[: len(guide)] == guide
    assert told["data"]["status"] == "ready"
    assert told["data"]["upload_id"] == taken["id"]

    gone = curl("-X", "DELETE", f"{yard.url}/models/{taken['id']}?purge=true")
    assert gone["status"] == "deleted"
    assert isinstance(gone["bytes_freed"], int)
    assert gone["bytes_freed"] > 0
    assert yard.predict("testuser", "test-model").status_code == 404
    for folder in ("apps", "blobs", "environments", "staging"):
        assert list((yard.data / folder).iterdir()) == []
    assert until(lambda: not marked(str(taken["id"])), "no process of the model is left")


def test_a_herd_on_a_stopped_model_makes_one_start(yard: Yard) -> None:
    yard.ready("herd", "cold", flask_app("cold"))
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: yard.predict("herd", "cold"), range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    until(lambda: any(b"model.started" in value and b'"cold"' in value for value in bus_values(yard)), "model.started is on the bus")
    assert sum(b"model.started" in value and b'"cold"' in value for value in bus_values(yard)) == 1
    assert sum("server-timing" in answer.headers for answer in answers) >= 1


def test_a_new_version_takes_over_and_the_old_one_ends(yard: Yard) -> None:
    first = yard.ready("versions", "app", flask_app("one"))
    assert yard.predict("versions", "app").json()["name"] == "one"
    second = yard.ready("versions", "app", flask_app("two"))
    assert second["version"] == first["version"] + 1
    until(lambda: yard.predict("versions", "app").json()["name"] == "two", "the new version serves")
    until(lambda: not marked(f"app-{first['id']}"), "the old version's process is gone")
    assert yard.http.delete(f"/models/{second['id']}").status_code == 409
    assert yard.http.delete(f"/models/{first['id']}").json()["status"] == "deleted"
    assert yard.predict("versions", "app").json()["name"] == "two"


@pytest.mark.slow
def test_an_idle_model_stops_and_starts_again(yard: Yard) -> None:
    # It stays frozen for long enough to be seen so on a loaded machine.
    settings = b"[idle]\nfreeze_s = 0.5\nstop_s = 10\n"
    files = {"app.py": b"NAME = 'idle'\n" + FLASK, "requirements.txt": b"flask==3.0.0\n", "modelyard.toml": settings}
    yard.ready("idle", "app", zipped(files))
    assert yard.predict("idle", "app").status_code == 200
    until(lambda: yard.state("idle", "app") == "frozen", "the model is frozen")
    assert yard.predict("idle", "app").status_code == 200
    until(lambda: yard.state("idle", "app") == "stopped", "the model is stopped")
    assert yard.predict("idle", "app").status_code == 200


@pytest.mark.slow
def test_a_crash_is_told_and_backs_off(yard: Yard) -> None:
    yard.ready(
        "crash",
        "app",
        flask_app(
            "crash", b'\n@app.route("/die")\ndef die():\n    import signal\n    os.kill(os.getppid(), signal.SIGKILL)\n    os._exit(3)\n'
        ),
    )
    assert yard.predict("crash", "app").status_code == 200
    assert yard.http.get("/m/crash/app/die").status_code == 502
    until(lambda: yard.state("crash", "app") == "failed", "the crash is recorded")
    answer = yard.predict("crash", "app")
    assert answer.status_code in {200, 503}
    until(lambda: yard.predict("crash", "app").status_code == 200, "it is started again after the pause")


RELEASE = signal.SIGRTMIN + 1
HOLD = b"""
import signal
if os.path.exists("hold"):
    released = []
    signal.signal(signal.SIGRTMIN + 1, lambda *_: released.append(True))
    while not released:
        time.sleep(0.02)
"""


def held_back(version_id: str) -> list[int]:
    """The processes of this version that wait for the signal which lets their start go on."""
    caught = 1 << (RELEASE - 1)
    found = []
    for pid in marked(version_id):
        with suppress(OSError):  # it has ended meanwhile
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            if int(status["SigCgt"], 16) & caught:
                found.append(pid)
    return found


@pytest.mark.slow
def test_500_callers_on_a_held_start_leave_everything_else_alive(yard: Yard) -> None:
    yard.ready("crowd", "warm", flask_app("warm"))
    assert yard.predict("crowd", "warm").status_code == 200
    slow = yard.ready("crowd", "slow", flask_app("slow", HOLD))
    (yard.data / "apps" / slow["id"] / "hold").touch()
    limits = httpx2.Limits(max_connections=600)
    sent = threading.Semaphore(0)

    def crowd() -> list[int]:
        with (
            httpx2.Client(base_url=yard.url, headers={"authorization": f"Bearer {yard.token}"}, timeout=300, limits=limits) as client,
            ThreadPoolExecutor(500) as callers,
        ):

            def call(_: int) -> int:
                sent.release()
                return int(client.post("/m/crowd/slow/predict", json={"input": "x"}).status_code)

            return list(callers.map(call, range(500)))

    with ThreadPoolExecutor(1) as background:
        answers = background.submit(crowd)
        worker = until(lambda: held_back(slow["id"]), "the start is held back")
        for _ in range(500):
            assert sent.acquire(timeout=60)
        assert yard.http.get("/health").status_code == 200
        assert yard.predict("crowd", "warm").status_code == 200
        assert yard.upload("crowd", "other", flask_app("other"), wait_s=0).status_code == 202
        assert yard.state("crowd", "slow") == "starting"
        assert not answers.done()
        os.kill(worker[0], RELEASE)
        assert answers.result(timeout=300) == [200] * 500


def test_the_server_ends_cleanly_and_leaves_no_process(own_yard: Yard) -> None:
    own_yard.start()
    own_yard.ready("clean", "app", flask_app("clean"))
    assert own_yard.predict("clean", "app").status_code == 200
    assert marked(own_yard.data.name)
    assert own_yard.end() == 0
    assert marked(str(own_yard.data)) == []
    assert not (own_yard.data / "server.json").exists()


@pytest.mark.slow
def test_a_second_server_on_the_same_folder_is_refused(own_yard: Yard) -> None:
    own_yard.start()
    second = subprocess.run(
        [sys.executable, "-m", "modelyard", "up", "--port", "0", "--data", str(own_yard.data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 4
    assert str(own_yard.process.pid if own_yard.process else 0) in second.stderr
    assert own_yard.url in second.stderr
