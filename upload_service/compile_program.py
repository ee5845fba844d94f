"""Compiles some modules of an environment; started as a program, of which several run at once: standard library only.

`python -I -S compile_program.py LIST ROOT SEEN_AS`: LIST is a file of paths below ROOT, each ended by NUL; to the app, ROOT is SEEN_AS.
"""

import py_compile
import sys
from pathlib import Path


def main() -> None:
    """Compile what can be compiled: packages bring templates too, and code for other Pythons, which nobody imports."""
    listed, root, seen_as = sys.argv[1:]
    for path in Path(listed).read_text(encoding="utf-8", errors="surrogateescape").split("\0")[:-1]:
        try:
            py_compile.compile(path, dfile=seen_as + path.removeprefix(root), doraise=True)
        except (py_compile.PyCompileError, FileExistsError):
            continue


if __name__ == "__main__":
    main()
