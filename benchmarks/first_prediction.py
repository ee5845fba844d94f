"""From a zip to its first prediction, against doing the same by hand with the same package cache."""

import io
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

from uv import find_uv_bin

from benchmarks.ground import REQUIREMENTS, ByHand, Server, app_zip
from benchmarks.result import Result
from benchmarks.rounds import Figures, measure
from modelyard.run.settings import BuildSettings
from modelyard.runtime.interpreter import own_interpreter
from upload_service.locks import index_words, variables


def first_prediction(folder: Path, cache: Path) -> list[Result]:
    """Upload, build, start and call, every time with nothing but the package cache left from before."""
    packed = app_zip()
    with Server(folder, cache) as server:

        def ours(number: int) -> Figures:
            name = f"first-{number}"
            began = time.perf_counter()
            told = server.upload(name, packed)
            ready_s = time.perf_counter() - began
            server.predict(name)
            took_s = time.perf_counter() - began
            steps = _steps(server, str(told["log_url"]))
            server.remove(name)
            return {"first_s": took_s, "upload_s": ready_s, "call_s": took_s - ready_s, **steps}

        def control(_: int) -> Figures:
            began = time.perf_counter()
            took_s = _by_hand(folder / "by-hand", packed, cache, began)
            shutil.rmtree(folder / "by-hand")
            return {"first_s": took_s}

        for arm in (ours, control):  # fills the package cache, and the machine's own
            arm(0)
        measured = measure(lambda number: ours(number + 1), control, "first_s")
    return [
        Result(
            "first-prediction",
            "zip to first prediction: upload, lock, install, verify, start, call",
            "by hand: `uv venv`, `uv pip install`, gunicorn, poll, call",
            "P1: at most 1.3x, at most 3 s",
            measured,
        )
    ]


def _steps(server: Server, log_url: str) -> Figures:
    """The seconds of the build's steps, as its log tells them."""
    lines = server.http.get(log_url).text.splitlines()
    told = dict(line.partition(": ")[::2] for line in lines)
    return {f"{name}_s": float(told[name].removesuffix(" s")) for name in ("unpack", "lock", "install", "verify")}


def _by_hand(folder: Path, packed: bytes, cache: Path, began: float) -> float:
    code, environment = folder / "code", folder / "environment"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(code)
    settings = BuildSettings()
    told = variables(settings, cache, str(folder))
    requirements = REQUIREMENTS.split()
    uv = find_uv_bin()
    for words in (
        [uv, "venv", "--no-config", "--quiet", "--python", own_interpreter(), str(environment)],
        [uv, "pip", "install", "--no-config", "--quiet", *index_words(settings), "--python", str(environment), *requirements, "gunicorn"],
    ):
        subprocess.run(words, cwd=folder, env=told, check=True, capture_output=True)
    with ByHand(folder / "server", environment, code) as app:
        app.wait_ready()
        app.predict()
        return time.perf_counter() - began
