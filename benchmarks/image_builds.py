"""Images from a zip, against `docker build` of a Dockerfile with pip that has every wheel at hand; needs an engine."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ground import EXPECTED, REQUIREMENTS, app_zip, wait_until
from benchmarks.image_ground import INLET, Yard, plan_of
from benchmarks.result import Result
from benchmarks.rounds import Figures, WrongAnswerError, measure
from modelyard.run.settings import BuildSettings
from modelyard.runtime.engine_names import code_image, environment_image

if TYPE_CHECKING:
    from modelyard.runtime.engine import Json

BASE = BuildSettings().base_image
EXAMPLES = Path(__file__).parents[1] / "examples"
TAG = "modelyard-bench-control"
ROUNDS = 7
DOCKERFILE = f"""\
FROM {BASE}
ARG ROUND
WORKDIR /srv/app
COPY wheels /wheels
COPY requirements.txt .
RUN pip install --no-cache-dir --no-index --find-links /wheels -r requirements.txt gunicorn
COPY app.py .
USER 65532:65532
CMD ["python", "-m", "gunicorn", "--bind", "0.0.0.0:8080", "--threads", "4", "app:app"]
"""


def image_builds(folder: Path, cache: Path) -> list[Result]:
    """The first build with warm caches, a build of changed code until it is ready, and each example's time and size."""
    if missing := Yard.missing(BASE, INLET):
        sys.stderr.write(f"image-builds: left out, {missing}\n")
        return []
    with ExitStack() as held:
        yard = held.enter_context(Yard(folder, cache))
        context = _context(folder / "control")
        held.callback(_docker, "image", "rm", "--force", TAG)
        return [_first(yard, context), _changed(yard, context)]


def _first(yard: Yard, context: Path) -> Result:
    path = yard.folder / "app.zip"
    path.write_bytes(app_zip())
    plan = plan_of(path)

    def ours(number: int) -> Figures:
        yard.forget()
        steps = yard.build(path, plan, f"first-{number}")
        return {"build_s": sum(steps.values()), **{f"{name}_s": took for name, took in steps.items()}}

    def control(number: int) -> Figures:
        began = time.perf_counter()
        _build(context, f"{number}-{time.time_ns()}", cached=False)
        return {"build_s": time.perf_counter() - began}

    for arm in (ours, control):  # fills uv's cache, and the engine's own
        arm(-1)
    measured = measure(ours, control, "build_s", rounds=ROUNDS, budget_s=120.0)
    facts = {
        "bytes": _sizes(yard, f"first-{ROUNDS - 1}"),
        "examples": {each.name: _example(yard, each) for each in sorted(EXAMPLES.iterdir())},
    }
    what = "zip to image, every package cached: lock, install, package"
    return Result("image-first-build", what, "`docker build` with pip and a folder of all wheels", "P6: at most 0.55x", measured, facts)


def _changed(yard: Yard, context: Path) -> Result:
    original = (context / "app.py").read_text()

    def ours(number: int) -> Figures:
        path = yard.folder / "changed.zip"
        path.write_bytes(app_zip(f"# {number} {time.time_ns()}\n"))
        plan = plan_of(path)
        began = time.perf_counter()
        steps = yard.build(path, plan, f"changed-{number}")
        imaged_s = time.perf_counter() - began
        yard.verify(path, plan, f"changed-{number}")
        return {"ready_s": time.perf_counter() - began, "image_s": imaged_s, **{f"{name}_s": took for name, took in steps.items()}}

    def control(number: int) -> Figures:
        (context / "app.py").write_text(f"{original}\n# {number} {time.time_ns()}\n")
        began = time.perf_counter()
        _build(context, "cached", cached=True)
        imaged_s = time.perf_counter() - began
        container = _docker("run", "--detach", "--publish", "127.0.0.1::8080", TAG)
        try:
            port = int(_docker("port", container, "8080").splitlines()[0].rpartition(":")[2])
            wait_until(lambda: _answers(port), "the control answers")
            return {"ready_s": time.perf_counter() - began, "image_s": imaged_s}
        finally:
            _docker("rm", "--force", container)

    for arm in (ours, control):
        arm(-1)
    measured = measure(ours, control, "ready_s", rounds=ROUNDS, budget_s=120.0)
    what = "changed code to a version that was seen to answer: lock, package, verify"
    return Result("image-code-only", what, "`docker build` with its cache, `docker run`, poll", "P7: at most 1.0x", measured)


def _example(yard: Yard, folder: Path) -> dict[str, float]:
    """Seconds of the first build, and the bytes on top of the base image."""
    path = yard.packed(folder)
    yard.forget()
    steps = yard.build(path, plan_of(path), f"example-{folder.name}")
    return {"build_s": round(sum(steps.values()), 2), **_sizes(yard, f"example-{folder.name}")}


def _sizes(yard: Yard, version_id: str) -> dict[str, int]:
    base, whole = yard.engine.image(BASE), yard.engine.image(code_image(yard.id, version_id))
    below = yard.engine.image(environment_image(yard.id, yard.reference))
    return {"base_bytes": _size(base), "packages_bytes": _size(below) - _size(base), "code_bytes": _size(whole) - _size(below)}


def _size(image: "Json | None") -> int:
    return int(image["Size"]) if image else 0


def _context(folder: Path) -> Path:
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([*words, "--python-version", "3.11", "--dest", str(wheels), *REQUIREMENTS.split(), "gunicorn"], check=True)
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    with zipfile.ZipFile(io.BytesIO(app_zip())) as archive:
        archive.extract("app.py", folder)
    return folder


def _build(context: Path, number: str, *, cached: bool) -> None:
    _docker("build", "--quiet", "--tag", TAG, "--build-arg", f"ROUND={number}", *([] if cached else ["--no-cache"]), str(context))


def _answers(port: int) -> bool:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", json.dumps({"input": "hello"}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=1) as answer:  # noqa: S310 - a port of loopback that this module opened
            if answer.read() != EXPECTED:
                raise WrongAnswerError("the control answers something else")
    except OSError:
        return False
    return True


def _docker(*words: str) -> str:
    quiet = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false"}
    return subprocess.run(
        [shutil.which("docker") or "docker", *words], check=True, capture_output=True, text=True, env=quiet, timeout=600
    ).stdout.strip()
