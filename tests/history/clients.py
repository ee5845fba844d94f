"""Callers that keep on until they are answered: uploads by `Idempotency-Key`, and calls of what was uploaded."""

import hashlib
import io
import random
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
from history.checker import ACCEPTED, FAILED, READY
from history.facts import Attempt

OWNER = "crowd"
IN_FLIGHT = 409
ONCE_MORE = 0.2
"""The part of uploads that is sent once more after it was answered, as by a caller who lost the answer."""
PAUSE_S = 0.25
WAIT_S = 10
ANSWER_S = 30.0

APP = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = "{key}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(KEY)))
        self.end_headers()
        self.wfile.write(KEY.encode())


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
SETTINGS = '[app]\ncommand = "python app.py"\nhealth = "/"\n'


@dataclass(frozen=True, slots=True)
class Upload:
    """One app to upload, with bytes of its own."""

    key: str
    name: str
    content: bytes

    @property
    def model(self) -> str:
        """`owner/name`."""
        return f"{OWNER}/{self.name}"

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.content).hexdigest()


def upload(number: int, models: int) -> Upload:
    """The upload of this number, to one of so many models."""
    key = f"key-{number:05}"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", APP.format(key=key))
        archive.writestr("modelyard.toml", SETTINGS)
    return Upload(key, f"model-{number % models}", packed.getvalue())


class Clients:
    """Uploads from several threads, and calls models meanwhile; all that was answered is kept.

    Args:
        within_s: Seconds after which an upload that is not ready is given up.
    """

    def __init__(self, http: httpx2.Client, began: float, within_s: float) -> None:
        self._http = http
        self._began = began
        self._within_s = within_s
        self._pause = threading.Event()
        self.attempts: list[Attempt] = []
        self.ended: list[Upload] = []
        """The uploads of which nothing more is asked."""
        self.answers: list[tuple[str, str]] = []
        self.calls = 0

    def send_all(self, uploads: Sequence[Upload], at_once: int) -> None:
        """Return when each of them is ready, or given up."""
        with ThreadPoolExecutor(at_once) as threads:
            for each in [threads.submit(self.send, one) for one in uploads]:
                each.result()

    def send(self, one: Upload) -> None:
        """Send it with its key until it is ready, sometimes once more; where its build has failed, by another key, as the answer says."""
        more = 2 if random.random() < ONCE_MORE else 1
        end, failures = time.monotonic() + self._within_s, 0
        while more and time.monotonic() < end:
            attempt = self._attempt(one, f"{one.key}-{failures}" if failures else one.key)
            self.attempts.append(attempt)
            assert not _is_final(attempt.status), f"asking again cannot help: {attempt}"
            more -= attempt.state == READY
            failures += attempt.state == FAILED
            self._pause.wait(PAUSE_S)
        self.ended.append(one)

    def call(self, stop: threading.Event) -> None:
        """Call models that were taken, one after another, until told to stop."""
        while not stop.wait(PAUSE_S):
            if self.attempts:
                self._call(random.choice(self.attempts).model)

    def _attempt(self, one: Upload, key: str) -> Attempt:
        at = time.monotonic() - self._began
        try:
            answer = self._http.post(
                "/upload",
                data={"username": OWNER, "model_name": one.name},
                files={"file": ("app.zip", one.content, "application/zip")},
                headers={"idempotency-key": key, "prefer": f"wait={WAIT_S}"},
                timeout=ANSWER_S,
            )
        except httpx2.TransportError as error:
            return Attempt(key, one.model, one.sha256, at, 0, repr(error))
        if answer.status_code != ACCEPTED:
            return Attempt(key, one.model, one.sha256, at, answer.status_code, answer.text)
        body = answer.json()
        return Attempt(key, one.model, one.sha256, at, ACCEPTED, body["id"], body["status"])

    def _call(self, model: str) -> None:
        self.calls += 1
        try:
            answer = self._http.get(f"/m/{model}/")
        except httpx2.TransportError:
            return
        if answer.is_success:
            self.answers.append((model, answer.text))


def _is_final(status: int) -> bool:
    """Whether asking again cannot help: the request itself is refused."""
    return 400 <= status < 500 and status not in {IN_FLIGHT, 408, 429}
