"""`python -m benchmarks.peers [FOLDER]`: the built-in classifier beside LitServe and BentoML, all over the same graph.

Apart from the other benchmarks, because each peer is installed into an environment of its own in the folder, which may stay for the next time.
Every server has two workers of one thread, the app's own decoder, and images as base64 in JSON; none has a front door before it.
"""

import base64
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.classifiers import ask
from benchmarks.ground import free_port
from benchmarks.peer_ground import environment, started
from benchmarks.report import machine
from tests.parts.checkpoints import APPS, MOBILENET
from tests.parts.model_apps import pulled, running

HERE = Path(__file__).parent
RESULT = HERE / "results" / "peers" / "classifier.json"
APP = str(APPS / "mobilenet")
CONNECTIONS = (1, 8, 32)
ROUNDS, IMAGES = 3, 48
BESIDE = ("onnxruntime", "numpy", "pillow", "starlette")


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
    python = environment(folder, "litserve", *BESIDE)
    for name, most in (("LitServe, batching", "8"), ("LitServe, one by one", "1")):
        port = free_port()
        words = [str(python), str(HERE / "peer_litserve.py"), str(port), most, str(_entry(weights)), APP]
        yield Server(name, held.enter_context(started(words, port, "/health", {})), "/predict", _alone)


def _bentoml(held: ExitStack, folder: Path, weights: Path) -> Iterator[Server]:
    python, port = environment(folder, "bentoml", *BESIDE), free_port()
    words = [str(python), "-m", "bentoml", "serve", "peer_bentoml:Classifier", "--port", str(port), "--host", "127.0.0.1"]
    told = {"WEIGHTS": str(_entry(weights)), "APP": APP, "BENTOML_HOME": str(folder / "bentoml-home"), "BENTOML_DO_NOT_TRACK": "1"}
    url = held.enter_context(started([*words, "--working-dir", str(HERE)], port, "/readyz", told))
    yield Server(
        "BentoML, batching", url, "/several", lambda content: json.dumps({"images": [base64.b64encode(content).decode()]}).encode()
    )
    yield Server("BentoML, one by one", url, "/one", lambda content: json.dumps({"image": base64.b64encode(content).decode()}).encode())


def _entry(weights: Path) -> Path:
    return next(path for path in (weights / "mobilenet").iterdir() if path.is_dir())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="modelyard-peers-") as made:
            main(Path(made))
