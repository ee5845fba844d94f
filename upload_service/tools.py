"""Starts the builder's tools: from one thread, with a clean environment, line by line into the build's log."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard.domain.plan import MIB
from upload_service.builders import Log, tool_timeout

TOOL = Path(__file__).with_name("tool.py")
CHECK_EVERY_S = 0.2
MOST_OUTPUT_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a tool ended, and what it printed on both streams."""

    status: int
    output: str


class Tools:
    """Runs tools to their end; a tool dies with this process, and with its build."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="tools")

    def run(self, command: Sequence[str], folder: Path, variables: Mapping[str, str], log: Log, *, inherit: Sequence[int] = ()) -> Outcome:
        """Run the command in the folder and return how it ended.

        Args:
            variables: Its whole environment.
            inherit: Descriptors that it keeps open: a lock that must outlive this process for as long as the tool writes.

        Raises:
            BuildError: `tool_timeout`.
            BuildCancelledError: The build must end.
        """
        words = [sys.executable, "-I", "-S", str(TOOL), str(os.getpid()), *command]
        process = self._starter.submit(
            subprocess.Popen,
            words,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(inherit),
            start_new_session=True,
        ).result()
        try:
            return self._follow(process, log)
        finally:
            _end(process)

    def close(self) -> None:
        """End the thread that starts tools, and so every tool."""
        self._starter.shutdown()

    def _follow(self, process: "subprocess.Popen[bytes]", log: Log) -> Outcome:
        deadline = time.monotonic() + self._timeout_s
        lines = Lines(log)
        out = process.stdout
        if out is None:  # pragma: no cover - Popen was given a pipe
            raise AssertionError
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while True:
                log.check()
                if time.monotonic() > deadline:
                    raise tool_timeout(self._timeout_s)
                if not selector.select(CHECK_EVERY_S):
                    continue
                chunk = os.read(out.fileno(), 65536)
                if not chunk:
                    break
                lines.feed(chunk)
        lines.end()
        return Outcome(process.wait(), "".join(lines.kept))


class Lines:
    """Cuts a stream into lines, and keeps the beginning of it for whoever reads how the tool ended."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rest = b""
        self._size = 0
        self.kept: list[str] = []

    def feed(self, chunk: bytes) -> None:
        """Take what came; its last line may go on."""
        self._rest += chunk
        *whole, self._rest = self._rest.split(b"\n")
        self._take(whole)

    def end(self) -> None:
        """Take what came last as a line."""
        if self._rest:
            self._take([self._rest])

    def _take(self, lines: list[bytes]) -> None:
        taken = []
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            self._size += len(text) + 1
            if self._size <= MOST_OUTPUT_BYTES:
                taken.append(text)
        self.kept += [f"{text}\n" for text in taken]
        if taken:
            self._log(*taken)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()
