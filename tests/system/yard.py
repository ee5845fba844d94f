"""A real server in a process of its own, and a caller that speaks to it as curl would."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import httpx2
from caller import Caller

FLASK = b"""
import os, time
from flask import Flask, jsonify, request
app = Flask(__name__)

@app.route("/predict", methods=["POST"])
def predict():
    return jsonify(prediction=f"Processed: {(request.get_json(silent=True) or {}).get('input', 'no input')}", name=NAME)

@app.route("/health")
def health():
    return jsonify(status="healthy")
"""
REQUIREMENTS = b"flask==3.0.0\n"

ANSWER_S = 330.0
"""Somewhat longer than a server lets anybody wait."""

T = TypeVar("T")


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def flask_app(name: str, more: bytes = b"") -> bytes:
    """A small Flask app that says its name."""
    return zipped({"app.py": b"NAME = " + repr(name).encode() + b"\n" + FLASK + more, "requirements.txt": REQUIREMENTS})


def until(look: Callable[[], T], what: str, deadline_s: float = 60.0) -> T:
    """What `look` gives, as soon as it is true; fails once the time is over."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


class Yard(Caller):
    """A server on a free port of the loopback interface, over one data folder."""

    def __init__(self, data: Path, *flags: str, variables: Mapping[str, str] | None = None, under: Sequence[str] = ()) -> None:
        self.data = data
        self._flags = flags
        self._under = under
        self._variables = dict(variables or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = [*self._under, sys.executable, "-m", "modelyard", "up", "--port", "0", "--data", str(self.data), *self._flags]
        log = (self.data.parent / f"{self.data.name}.log").open("ab")
        with log:
            # Tests that wait for a condition ask more often than any person does.
            often = {"MODELYARD_LIMITS__API_PER_MINUTE": "1000000", "MODELYARD_LIMITS__ANONYMOUS_PER_MINUTE": "1000000"}
            # A deletion answers with its end on a slow machine too.
            often["MODELYARD_UPLOAD__DELETE_WAIT_S"] = "60"
            # And a call with the end of its model's start.
            often["MODELYARD_RUN__HOLD_S"] = "120"
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **often, **self._variables})
        self.url = until(self._answers, "the server answers", 120)
        self.token = (self.data / "owner.token").read_text().strip()
        self.http = httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=ANSWER_S)

    def _answers(self) -> str:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended: {self.log()[-2000:]}"
        try:
            told = json.loads((self.data / "server.json").read_text())
            if told["pid"] == self.process.pid and httpx2.get(told["url"] + "/livez", timeout=2).status_code == 200:
                return str(told["url"])
        except (OSError, ValueError, httpx2.HTTPError):
            pass
        return ""

    def log(self) -> str:
        """What it printed."""
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.http.close()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=90)
        self.http.close()
        return code

    def state(self, owner: str, name: str) -> str:
        """The state of the model's instance."""
        return str(self.http.get(f"/models/{owner}/{name}").json()["state"])


def marked(word: str) -> list[int]:
    """The processes whose environment or command names this word: every process below a server that was given it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                seen = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in seen:
                found.append(int(folder.name))
    return found
