"""`python -m benchmarks.peers [FOLDER]`: the built-in classifier beside LitServe and BentoML, all over the same graph.

Apart from the other benchmarks, because each peer is installed into an environment of its own in the folder, which may stay for the next time.
Every server has two workers of one thread, the app's own decoder, and images as base64 in JSON; none has a front door before it.
"""

import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from uv import find_uv_bin

from benchmarks.classifiers import ask
from benchmarks.report import machine
from tests.parts.checkpoints import APPS, MOBILENET
from tests.parts.model_apps import pulled, running

HERE = Path(__file__).parent
RESULT = HERE / "results" / "peers" / "classifier.json"
APP = str(APPS / "mobilenet")
CONNECTIONS = (1, 8, 32)
ROUNDS, IMAGES = 3, 48
START_S = 90.0


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve the graph, and how an image is asked about there."""

    name: str
    url: str
    path: str
    body: Callable[[bytes], bytes]

    def images_per_s(self, connections: int) -> float:
        """How many images a closed loop gets answered; errors as `ask`."""
        headers = {"content-type": "application/json"}
        return IMAGES / ask(self.url, self.path, headers, connections=connections, images=IMAGES, body=self.body)


def main(folder: Path) -> None:
    """Measure all, write the result, and print a table."""
    with ExitStack() as held:
        weights = pulled(folder / "weights", "mobilenet", MOBILENET)
        servers = [*_ours(held, weights), *_litserve(held, folder, weights), *_bentoml(held, folder, weights)]
        for server in servers:
            server.images_per_s(2)
        found: dict[str, dict[int, list[float]]] = {server.name: {count: [] for count in CONNECTIONS} for server in servers}
        for number in range(ROUNDS):
            for count in CONNECTIONS:
                for server in servers if number % 2 == 0 else servers[::-1]:
                    found[server.name][count].append(round(server.images_per_s(count), 1))
    told = {"machine": machine() | {"load_after": os.getloadavg()[0]}, "images": IMAGES, "images_per_s": found}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    rows = [[name, *(f"{statistics.median(values):.1f}" for values in each.values())] for name, each in found.items()]
    head = ["images/s, median", *(f"c = {count}" for count in CONNECTIONS)]
    sys.stdout.write("\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]) + "\n")


def _alone(content: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(content).decode(), "top_k": 1}).encode()


def _ours(held: ExitStack, weights: Path) -> Iterator[Server]:
    for name, most in (("modelyard, batching", "4"), ("modelyard, one by one", "1")):
        app = held.enter_context(running("mobilenet", weights, {"MODELYARD_CPUS": "2", "BATCH_MOST": most}))
        yield Server(name, app.url, "/predict", _alone)


def _litserve(held: ExitStack, folder: Path, weights: Path) -> Iterator[Server]:
    python = _environment(folder, "litserve")
    for name, most in (("LitServe, batching", "8"), ("LitServe, one by one", "1")):
        port = _free_port()
        words = [str(python), str(HERE / "peer_litserve.py"), str(port), most, str(_entry(weights)), APP]
        yield Server(name, held.enter_context(_started(words, port, "/health", {})), "/predict", _alone)


def _bentoml(held: ExitStack, folder: Path, weights: Path) -> Iterator[Server]:
    python, port = _environment(folder, "bentoml"), _free_port()
    words = [str(python), "-m", "bentoml", "serve", "peer_bentoml:Classifier", "--port", str(port), "--host", "127.0.0.1"]
    told = {"WEIGHTS": str(_entry(weights)), "APP": APP, "BENTOML_HOME": str(folder / "bentoml-home"), "BENTOML_DO_NOT_TRACK": "1"}
    url = held.enter_context(_started([*words, "--working-dir", str(HERE)], port, "/readyz", told))
    yield Server(
        "BentoML, batching", url, "/several", lambda content: json.dumps({"images": [base64.b64encode(content).decode()]}).encode()
    )
    yield Server("BentoML, one by one", url, "/one", lambda content: json.dumps({"image": base64.b64encode(content).decode()}).encode())


def _environment(folder: Path, package: str) -> Path:
    """The interpreter of an environment with this package, made where it is missing."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(folder / package)], check=True)
        needed = [package, "onnxruntime", "numpy", "pillow", "starlette"]
        subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), *needed], check=True)
    return python


@contextmanager
def _started(words: list[str], port: int, ready: str, told: dict[str, str]) -> Iterator[str]:
    """The URL of a server that answers; it ends with the block."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **told}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, env=variables, stdout=log, stderr=log, start_new_session=True)
        url, ends = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        try:
            while not _answers(url + ready):
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise RuntimeError(log.read().decode()[-2000:])
                time.sleep(0.1)
            yield url
        finally:
            # With all its workers, which else go on polling.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).is_success
    except httpx2.HTTPError:
        return False


def _entry(weights: Path) -> Path:
    return next(path for path in (weights / "mobilenet").iterdir() if path.is_dir())


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="modelyard-peers-") as made:
            main(Path(made))
