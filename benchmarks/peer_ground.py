"""What comparisons with other servers share: an environment for each of them, and its process."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
from uv import find_uv_bin

START_S = 90.0


def environment(folder: Path, package: str, *beside: str) -> Path:
    """The interpreter of an environment with this package and others, made where it is missing."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(folder / package)], check=True)
        subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), package, *beside], check=True)
    return python


@contextmanager
def started(words: Sequence[str], port: int, ready: str, told: dict[str, str]) -> Iterator[str]:
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
