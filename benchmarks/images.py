"""The built-in classifier through the front door, against a loop over torch; and what each of them has in memory, and takes to start."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processor
from benchmarks.classifiers import LABELS, Torch, ask, can_compare, memory_mb
from benchmarks.ground import OWNER, Server, wait_until
from benchmarks.result import Result
from benchmarks.rounds import Figures, measure
from modelyard.run.resources import BUILTIN_SUFFIXES
from tests.parts.checkpoints import APPS, MOBILENET
from tests.parts.model_apps import pulled

NAME, COLD, FREEZES = "mobilenet", "cold", "freezes"
IMAGES = 36
"""Of each arm in each round."""
CONNECTIONS = 8
AT_REST_S = 4.0
"""After so long without a call the app has given back what only many at once need; it is frozen long after that."""
STAYS = "\n[idle]\nfreeze_s = 3600\nstop_s = 3600\n"
ENDS_SOON = "\n[idle]\nfreeze_s = 3600\nstop_s = 10\n"
FREEZES_SOON = "\n[idle]\nfreeze_s = 0.2\nstop_s = 3600\n"


def images(folder: Path, cache: Path) -> list[Result]:
    """Images per second; nothing where the weights of the tests or torch are missing."""
    if not can_compare():
        return []
    with served(folder, cache, NAME, MOBILENET, **{NAME: STAYS}) as server, Torch() as torch:
        headers = {"Authorization": f"Bearer {server.token}"}
        batch = torch.best_batch(IMAGES // 2)
        ask(server.url, _path(NAME), headers, connections=CONNECTIONS, images=IMAGES)

        def ours(_: int) -> Figures:
            return {"images_per_s": IMAGES / ask(server.url, _path(NAME), headers, connections=CONNECTIONS, images=IMAGES)}

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
    if not can_compare():
        return []
    with served(folder, cache, NAME, MOBILENET, **{COLD: ENDS_SOON, FREEZES: FREEZES_SOON}) as server:
        headers = {"Authorization": f"Bearer {server.token}"}

        def ours(_: int) -> Figures:
            before = at_rest(server)
            figures = {"first_s": ask(server.url, _path(COLD), headers, connections=1, images=1)}
            figures["warm_s"] = ask(server.url, _path(COLD), headers, connections=1, images=len(LABELS)) / len(LABELS)
            time.sleep(AT_REST_S)
            figures["memory_mb"] = memory_mb(*set(instance_pids(server)) - before)
            figures["frozen_s"] = ask(server.url, _path(FREEZES), headers, connections=1, images=1)
            return figures

        def control(_: int) -> Figures:
            began = time.perf_counter()
            with Torch() as torch:
                torch.classify(1, 1)
                first_s = time.perf_counter() - began
                warm_s = torch.classify(1, len(LABELS)) / len(LABELS)
                return {"first_s": first_s, "warm_s": warm_s, "memory_mb": memory_mb(torch.pid)}

        ask(server.url, _path(FREEZES), headers, connections=1, images=1)
        measured = measure(ours, control, "memory_mb", rounds=3, budget_s=60)
    return [
        Result(
            "resting",
            "an instance of MobileNet with its holder and sandbox, after it has answered; first: from stopped, frozen: from frozen, warm: running",
            "the same with torch and transformers in one process, without sandbox and HTTP",
            "P10: memory <= 0.5x",
            measured,
        )
    ]


@contextmanager
def served(folder: Path, cache: Path, app: str, checkpoint: Path, **models: str) -> Iterator[Server]:
    """A server with a built-in app under these names of a user's, each with idle times of the benchmark's."""
    server = Server(folder, cache, "[run]\nlook_every_s = 0.05\n")
    pulled(server.data / "weights", app, checkpoint)
    with server:
        for name, idle in models.items():
            server.upload(name, _packed(APPS / app, idle))
        yield server


def _packed(app: Path, idle: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(app.rglob("*")):
            if path.suffix in BUILTIN_SUFFIXES:
                text = path.read_text() + (idle if path.name == "modelyard.toml" else "")
                archive.writestr(path.relative_to(app).as_posix(), text)
    return packed.getvalue()


def _path(name: str) -> str:
    return f"/m/{OWNER}/{name}/predict?top_k=1"


def _state(server: Server, name: str) -> str:
    return str(server.http.get(f"/models/{OWNER}/{name}").json()["state"])


def at_rest(server: Server) -> set[int]:
    """The processes that hold instances once one model is stopped and the other frozen."""
    wait_until(lambda: _state(server, COLD) == "stopped" and _state(server, FREEZES) in {"frozen", "stopped"}, "both rest")
    return set(instance_pids(server))


def instance_pids(server: Server) -> list[int]:
    """The processes below the server that hold instances, and are them."""
    return [pid for pid in processor.family(server.pid) - {server.pid} if Path(f"/proc/{pid}/smaps_rollup").exists()]
