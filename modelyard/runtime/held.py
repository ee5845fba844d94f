"""Starts a holder and talks with it: the platform's end of the control socket and of the app's output."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.runtime.interpreter import own_interpreter
from modelyard.runtime.runtime import StartError

PROGRAM = Path(__file__).with_name("holder.py")
MOST_SOCKETS = 64
START_S = 30.0
ANSWER_S = 10.0

# Message boundaries and an end that is told: what the control socket needs. Systems without it have no sandbox either.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class HolderProcess:
    """The part of `Held` that both ways of starting share.

    Args:
        order: What the holder is told, see `holder.py`.
        variables: The app's whole environment. The holder gets the same and no other: it could be read inside.
        descriptors: Further descriptors that the holder and the sandbox inherit.

    Raises:
        StartError: The holder said what failed, or ended without a word.
    """

    def __init__(self, name: str, port: int, order: Mapping[str, Any], variables: Mapping[str, str], descriptors: Sequence[int]) -> None:
        self.port = port
        self._talk = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, _KIND)
        # A pipe: a file as standard output would show its path on the host, and the app could cut it short.
        self.output, written = os.pipe()
        os.set_blocking(self.output, False)
        try:
            self.process = subprocess.Popen(
                [own_interpreter(), "-I", "-S", str(PROGRAM), str(theirs.fileno()), name],
                env=dict(variables),
                pass_fds=(*descriptors, theirs.fileno()),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        except OSError as error:
            self._close_all()
            raise StartError(f"the holder could not be started: {error}") from error
        finally:
            theirs.close()
            os.close(written)
        self._begin(order)

    def _begin(self, order: Mapping[str, Any]) -> None:
        self._control.settimeout(START_S)
        answer = b""
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(order).encode() + b"\n")
            answer = self._control.recv(65536)
        self._control.settimeout(ANSWER_S)
        said = json.loads(answer or b"{}")
        if not said.get("up"):
            self.let_go()
            self.process.kill()
            self.process.wait()
            why = said.get("error") or self._last_words() or f"exit status {self.process.returncode}"
            self._close_all()
            raise StartError(f"the sandbox could not be made: {why}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return os.read(self.output, 65536).decode(errors="replace").strip()[-2000:]
        return ""

    def handed_out(self, count: int, *, v6: bool) -> list[socket.socket]:
        """Sockets that the holder made in the network namespace that it owns.

        Raises:
            OSError: The holder is gone.
        """
        count = max(1, min(count, MOST_SOCKETS))
        with self._talk:
            try:
                self._control.sendall(json.dumps({"sockets": count, "v6": v6}).encode() + b"\n")
                _, ancillary, _, _ = self._control.recvmsg(1, socket.CMSG_SPACE(4 * count), _CLOSE_ON_EXEC)
            except TimeoutError:  # an answer that came late would be taken for the next request's
                self._control.shutdown(socket.SHUT_RDWR)
                raise
        numbers = array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
        if not numbers:
            raise ConnectionResetError("the holder is gone")
        return [socket.socket(fileno=number) for number in numbers]

    def let_go(self) -> None:
        """See `Held.let_go`."""
        with contextlib.suppress(OSError):  # shut down before it is closed: a thread that waits for an answer then wakes
            self._control.shutdown(socket.SHUT_RDWR)
        with self._talk:
            self._control.close()

    def close(self) -> None:
        """See `Held.close`."""
        self.let_go()
        self._close_all()

    def _close_all(self) -> None:
        self._control.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1
