"""What is measured: a server in a process of its own, and the same app started by hand without it."""

import io
import json
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from benchmarks.load import Call
from benchmarks.rounds import WrongAnswerError
from modelyard.domain.plan import Plan
from modelyard.runtime.command import Layout, variables, words
from modelyard.runtime.server_config import FILES

OWNER = "bench"
REQUIREMENTS = "flask==3.0.0\n"
BODY = b'{"input":"hello"}'
EXPECTED = b'{"prediction":"Processed: hello"}\n'
LOOK_S = 0.002
"""Between two looks at what is waited for: small beside everything that is measured."""
DEADLINE_S = 60.0

_APP = """\
from flask import Flask, jsonify, request

app = Flask(__name__)


@app.route("/predict", methods=["POST"])
def predict():
    return jsonify(prediction=f"Processed: {request.get_json()['input']}")


@app.route("/health")
def health():
    return jsonify(status="healthy")
"""


def app_zip(settings: str = "") -> bytes:
    """The zip of a small Flask app, with a `modelyard.toml` of these lines where there are any."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", _APP)
        archive.writestr("requirements.txt", REQUIREMENTS)
        if settings:
            archive.writestr("modelyard.toml", settings)
    return packed.getvalue()


def wait_until(look: Callable[[], bool], what: str) -> None:
    """Return as soon as `look` is true.

    Raises:
        TimeoutError: It was not within `DEADLINE_S`.
    """
    ends = time.monotonic() + DEADLINE_S
    while not look():
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(LOOK_S)


UNLIMITED = "[limits]\napi_per_minute = 1_000_000_000\ncalls_per_minute = 1_000_000_000\n"
"""A bench calls as often as it can, with one credential."""


class Server:
    """`modelyard up` on a free port of the loopback interface, over a data folder of its own.

    Args:
        folder: Its data folder, and its log beside it.
        cache: The package cache, shared by all servers and with what is done by hand.
        settings: Lines of `settings.toml`.
    """

    def __init__(self, folder: Path, cache: Path, settings: str = "") -> None:
        self.data = folder / "data"
        self._log = folder / "server.log"
        self.data.mkdir(mode=0o700, parents=True)
        cache.mkdir(exist_ok=True)
        (self.data / "uv-cache").symlink_to(cache, target_is_directory=True)
        (self.data / "settings.toml").write_text(f"{settings}\n{UNLIMITED}")

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelyard", "up", "--port", "0", "--data", str(self.data)], stdout=log, stderr=log
            )
        self.pid = self._process.pid
        wait_until(self._answers, "the server answers")
        self.token = (self.data / "owner.token").read_text().strip()
        self.http = httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=DEADLINE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended: {self._log.read_text()[-2000:]}")
        try:
            self.url = str(json.loads((self.data / "server.json").read_text())["url"])
            return httpx2.get(f"{self.url}/livez").is_success
        except (OSError, ValueError, httpx2.HTTPError):
            return False

    def upload(self, name: str, packed: bytes) -> dict[str, Any]:
        """Upload the zip, wait for its build, and return the answer.

        Raises:
            WrongAnswerError: It did not become ready.
        """
        answer = self.http.post(
            "/upload",
            data={"username": OWNER, "model_name": name},
            files={"file": ("app.zip", packed, "application/zip")},
            headers={"prefer": "wait=60"},
        )
        told: dict[str, Any] = answer.json()
        if told.get("status") != "ready":
            raise WrongAnswerError(f"{answer.status_code} {answer.text}")
        return told

    def predict(self, name: str) -> None:
        """Call the model once.

        Raises:
            WrongAnswerError: It answered something else.
        """
        check(self.http.post(f"/m/{OWNER}/{name}/predict", content=BODY, headers={"content-type": "application/json"}))

    def call(self, name: str) -> Call:
        """The same call, for a loop."""
        return Call(self.url, f"/m/{OWNER}/{name}/predict", BODY, EXPECTED, {"Authorization": f"Bearer {self.token}"})

    def remove(self, name: str) -> None:
        """Delete the model with all that was built for it."""
        answer = self.http.delete(f"/models/{OWNER}/{name}", params={"purge": "true"})
        if answer.status_code != httpx2.codes.OK:
            raise WrongAnswerError(f"{answer.status_code} {answer.text}")

    def wait_stopped(self, name: str) -> None:
        """Return once the model's instance has ended."""
        wait_until(lambda: bool(self.http.get(f"/models/{OWNER}/{name}").json()["state"] == "stopped"), f"{name} stops")

    def events(self, name: str) -> list[str]:
        """The wire names of the model's events on the bus, in their order."""
        with closing(sqlite3.connect(self.data / "modelyard.db")) as database:
            values = database.execute("select value from bus_records order by topic, partition, offset").fetchall()
        told = [json.loads(value) for (value,) in values]
        return [str(each["event"]) for each in told if each["data"]["model_name"] == name]

    def environment(self) -> Path:
        """The one environment that was built so far."""
        (found,) = (path for path in (self.data / "environments").iterdir() if path.is_dir() and "." not in path.name)
        return found

    def code(self, version_id: str) -> Path:
        """The unpacked code of a version."""
        return self.data / "apps" / version_id


class ByHand:
    """The app under the server that an upload of it gets, started with the same words and variables but without a sandbox.

    Args:
        folder: For the server's own configuration.
        environment: Holds `bin/python`.
        code: Holds `app.py`.
    """

    def __init__(self, folder: Path, environment: Path, code: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(text)
        self._layout = Layout(environment=str(environment), app=str(code), configuration=str(folder), scratch=str(folder))
        self._code = code

    def __enter__(self) -> Self:
        port = free_port()
        plan = Plan(server="gunicorn", target="app:app", port=port)
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(base_url=self.url, timeout=DEADLINE_S)
        self._process = subprocess.Popen(
            words(plan, port, self._layout),
            cwd=self._code,
            env=variables(plan, port, "by-hand", self._layout),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def wait_ready(self) -> None:
        """Return once `GET /health` is answered."""
        wait_until(self._answers, "the app answers")

    def _answers(self) -> bool:
        try:
            return self.http.get("/health").is_success
        except httpx2.HTTPError:
            return False

    def predict(self) -> None:
        """Call the app once.

        Raises:
            WrongAnswerError: It answered something else.
        """
        check(self.http.post("/predict", content=BODY, headers={"content-type": "application/json"}))

    def call(self) -> Call:
        """The same call, for a loop."""
        return Call(self.url, "/predict", BODY, EXPECTED, {})


def check(answer: httpx2.Response) -> None:
    """Return where the answer is the app's.

    Raises:
        WrongAnswerError: It is not.
    """
    if answer.status_code != httpx2.codes.OK or answer.content != EXPECTED:
        raise WrongAnswerError(f"{answer.status_code} {answer.text[:200]}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
