"""What the benchmarks of the built-in classifier share: photographs with their labels, torch beside it, memory, and a closed loop of images."""

import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.rounds import WrongAnswerError
from tests.parts.checkpoints import APPS, MOBILENET, PHOTOS

LABELS = {
    "bird.jpg": "chickadee",
    "cat.jpg": "Egyptian cat",
    "dog_segmentation.jpg": "Samoyed, Samoyede",
    "grace_hopper.jpg": "military uniform",
    "parrot.jpg": "macaw",
    "sunflower.jpg": "daisy",
}
"""Photographs that every sound MobileNetV2 names so, whatever its rounding."""
BATCHES = (1, 4, 8)
# Its threads sleep while they wait for one another: on shared cores they would else burn the time of the one that they wait for.
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def can_compare() -> bool:
    """Whether torch and what lies outside the repository, weights and photographs, are there."""
    return importlib.util.find_spec("torch") is not None and MOBILENET.is_dir() and PHOTOS.is_dir()


class TorchProcess:
    """Torch in a process of its own, with as many threads as it takes by itself; each line asks it for something.

    Args:
        words: The script and what it is given.
    """

    def __init__(self, *words: str) -> None:
        self._words = [sys.executable, *words]

    def __enter__(self) -> Self:
        ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._words, **ends, text=True, env=os.environ | _PATIENT)
        self.pid = self._process.pid
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                end.close()
        self._process.wait(60)

    def ask_line(self, line: str) -> dict[str, Any]:
        """What it answers; empty where it has ended."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline() or "{}"))


class Torch(TorchProcess):
    """The classifier in torch."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("torch_classifier.py"))
        super().__init__(script, str(MOBILENET), str(APPS / "mobilenet"), *(str(PHOTOS / name) for name in LABELS))

    def classify(self, batch: int, images: int) -> float:
        """The seconds for so many images.

        Raises:
            WrongAnswerError: A label was not the expected one.
        """
        told = self.ask_line(json.dumps({"batch": batch, "images": images}))
        if told.get("labels") != list(LABELS.values())[:images]:
            raise WrongAnswerError(f"torch says {told}")
        return float(told["seconds"])

    def best_batch(self, images: int) -> int:
        """The size of batch with which it is fastest here."""
        self.classify(1, len(LABELS))
        return min(BATCHES, key=lambda batch: self.classify(batch, images))


def ask(
    url: str,
    path: str,
    headers: dict[str, str],
    *,
    connections: int,
    images: int,
    body: Callable[[bytes], bytes] = lambda content: content,
) -> float:
    """The seconds in which so many images were answered, each connection waiting for its answer.

    Args:
        url: The server's.
        path: Where an image is posted there.
        headers: Of each call.
        connections: How many wait at the same time.
        images: How many in all.
        body: What is sent for the bytes of an image.

    Raises:
        WrongAnswerError: A label was not the expected one.
    """
    photos = [(body((PHOTOS / name).read_bytes()), label) for name, label in LABELS.items()]
    numbers, problems, guard = iter(range(images)), Counter[str](), threading.Lock()

    def caller() -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        while True:
            with guard:
                number = next(numbers, None)
            if number is None:
                break
            content, label = photos[number % len(photos)]
            connection.request("POST", path, content, {"content-type": "image/jpeg", **headers})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.client.OK or json.dumps(label) not in text.decode():
                with guard:
                    problems[f"{answer.status} {text[:120]!r}"] += 1
        connection.close()

    threads = [threading.Thread(target=caller) for _ in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise WrongAnswerError(str(problems.most_common(3)))
    return time.perf_counter() - began


def memory_mb(*pids: int) -> float:
    """What these processes have in memory, shared pages by their share (PSS), in MB."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) * 1024 / 1e6
