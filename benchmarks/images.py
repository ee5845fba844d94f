"""The built-in classifier through the front door, against a loop over torch; and what each of them has in memory, and takes to start."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processor
from benchmarks.classifiers import LABELS, Torch, ask, memory_mb
from benchmarks.ground import OWNER, Server
from benchmarks.result import Result
from benchmarks.rounds import Figures, measure
from modelyard.run.resources import BUILTIN_SUFFIXES
from tests.parts.checkpoints import APPS, MOBILENET
from tests.parts.model_apps import pulled

NAME = "mobilenet"
PATH = f"/m/{OWNER}/{NAME}/predict?top_k=1"
IMAGES = 36
"""Of each arm in each round."""
CONNECTIONS = 8
STAYS = "\n[idle]\nfreeze_s = 3600\nstop_s = 3600\n"
ENDS_SOON = "\n[idle]\nfreeze_s = 3600\nstop_s = 1\n"


def images(folder: Path, cache: Path) -> list[Result]:
    """Images per second; nothing where the weights of the tests are missing."""
    if not MOBILENET.is_dir():
        return []
    with _served(folder, cache, STAYS) as server, Torch() as torch:
        headers = {"Authorization": f"Bearer {server.token}"}
        batch = torch.best_batch(IMAGES // 2)
        ask(server.url, PATH, headers, connections=CONNECTIONS, images=IMAGES)

        def ours(_: int) -> Figures:
            return {"images_per_s": IMAGES / ask(server.url, PATH, headers, connections=CONNECTIONS, images=IMAGES)}

        def control(_: int) -> Figures:
            return {"images_per_s": IMAGES / torch.classify(batch, IMAGES)}

        measured = measure(ours, control, "images_per_s", rounds=5, budget_s=60)
    return [
        Result(
            "images",
            f"photographs through the front door, {CONNECTIONS} connections: token, sandbox, decode, MobileNetV2, JSON",
            "a loop in one process: the same decode and preprocessing, torch eager, its best size of batch; no HTTP",
            "P9: >= 1.5x",
            measured,
            facts={"images": IMAGES, "torch_batch": batch, "photographs": len(LABELS)},
        )
    ]


def resting(folder: Path, cache: Path) -> list[Result]:
    """Memory of an instance that has answered, and the seconds from a stopped model to its first label."""
    if not MOBILENET.is_dir():
        return []
    with _served(folder, cache, ENDS_SOON) as server:
        headers = {"Authorization": f"Bearer {server.token}"}

        def ours(_: int) -> Figures:
            server.wait_stopped(NAME)
            began = time.perf_counter()
            ask(server.url, PATH, headers, connections=1, images=1)
            first_s = time.perf_counter() - began
            ask(server.url, PATH, headers, connections=2, images=len(LABELS))
            return {"memory_mb": memory_mb(*_instance_pids(server)), "first_s": first_s}

        def control(_: int) -> Figures:
            began = time.perf_counter()
            with Torch() as torch:
                torch.classify(1, 1)
                first_s = time.perf_counter() - began
                torch.classify(1, len(LABELS))
                return {"memory_mb": memory_mb(torch.pid), "first_s": first_s}

        measured = measure(ours, control, "memory_mb", rounds=5, budget_s=60)
    return [
        Result(
            "resting",
            "an instance of MobileNet that has answered, holder and sandbox with it, as it is while frozen; and its first answer from stopped",
            "the same with torch and transformers in one process, without sandbox and HTTP",
            "P10: memory <= 0.5x",
            measured,
        )
    ]


@contextmanager
def _served(folder: Path, cache: Path, idle: str) -> Iterator[Server]:
    """A server with the built-in app under a name of a user's, so that its idle times are the benchmark's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((APPS / "mobilenet").rglob("*")):
            if path.suffix in BUILTIN_SUFFIXES:
                text = path.read_text() + (idle if path.name == "modelyard.toml" else "")
                archive.writestr(path.relative_to(APPS / "mobilenet").as_posix(), text)
    server = Server(folder, cache, "[run]\nlook_every_s = 0.05\n")
    pulled(server.data / "weights", "mobilenet", MOBILENET)
    with server:
        server.upload(NAME, packed.getvalue())
        yield server


def _instance_pids(server: Server) -> list[int]:
    """The processes below the server that hold the instance, and are it."""
    return [pid for pid in processor.family(server.pid) - {server.pid} if Path(f"/proc/{pid}/smaps_rollup").exists()]
