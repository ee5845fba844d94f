"""Runs inside the throw-away containers of a build: fetches packages, or installs and compiles them. Standard library only.

`python -I -S install.py fetch|install UV INTERPRETER OUT WORDS...`, where WORDS are the index as uv's flags name it. The locks lie in
`OUT/in`: `own.lock`, and `server.lock` where the server has a folder of its own. The environment is `OUT/env`.
"""

import subprocess
import sys
from pathlib import Path

NOT_CACHED = 44
"""The exit status that says: uv lacks a file that only the network has."""
FAILED = 1
INSTALL = ("pip", "install", "--no-config", "--require-hashes", "--no-deps", "--no-build", "--no-python-downloads")
SERVER = "server/lib/python3/site-packages"
"""The server's own folder below the environment, where it has one."""
DISCARDED = "/tmp/discarded"  # noqa: S108 - a file system of the container's own


def run(words: list[str]) -> None:
    """Run a tool, print what it prints, and end with it where it fails."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = []
    for line in process.stdout or ():
        printed.append(line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    if process.wait():
        text = b"".join(printed).decode("utf-8", "replace").lower()
        absent = "not found in the cache" in text or "network was disabled" in text or "network connectivity is disabled" in text
        sys.exit(NOT_CACHED if absent else FAILED)


def locks(out: Path) -> list[tuple[str, Path]]:
    """Name and path of each lock that is there."""
    found = [(name, out / "in" / f"{name}.lock") for name in ("own", "server")]
    return [(name, path) for name, path in found if path.exists()]


def fetch(uv: str, interpreter: str, out: Path, index: list[str]) -> None:
    """Fill uv's cache; what it installs on the way are links into the cache, and nobody's."""
    for name, lock in locks(out):
        target = f"{DISCARDED}/{name}"
        run([uv, *INSTALL, "--link-mode", "symlink", *index, "--python", interpreter, "--target", target, "-r", str(lock)])


def install(uv: str, interpreter: str, out: Path, index: list[str]) -> None:
    """Make the environment from the cache alone."""
    env = out / "env"
    run([uv, "venv", "--no-config", "--quiet", "--relocatable", "--no-project", "--no-python-downloads", "--python", interpreter, str(env)])
    for name, lock in locks(out):
        # The environment's interpreter is asked before anything lies in it, and never again after.
        apart = name == "server"
        python = interpreter if apart else str(env / "bin/python")
        target = ["--target", str(env / SERVER)] if apart else []
        run([uv, *INSTALL, "--offline", "--link-mode", "copy", *index, "--python", python, *target, "-r", str(lock)])
    # Bytecode of this kind has no time of its source in it, so that the layer is the same every time.
    words = [interpreter, "-I", "-S", "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
    run([*words, "-s", str(env), "-p", "/env", *(str(path) for path in (env / "lib", env / "server") if path.is_dir())])


def main() -> None:
    """Do what the first word says."""
    what, uv, interpreter, out, *index = sys.argv[1:]
    {"fetch": fetch, "install": install}[what](uv, interpreter, Path(out), index)


if __name__ == "__main__":
    main()
