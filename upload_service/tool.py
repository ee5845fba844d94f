"""Runs one tool that dies with its parent; started as a program: `python -I -S tool.py PARENT_PID COMMAND...`.

The kernel sends the signal when the parent's *thread* ends (prctl(2), PR_SET_PDEATHSIG), so the parent starts all
of its tools from one thread that lives as long as it does.
"""

import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main() -> None:
    """Ask for the signal, then become the command."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only Linux has the call

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)  # the parent ended before the signal was asked for
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller wrote every word


if __name__ == "__main__":
    main()
