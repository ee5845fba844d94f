"""The modules of a model app, which are a folder to zip and no package: imported by name, and forgotten again."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

from parts.checkpoints import APPS


@contextmanager
def imported(app: str, *names: str) -> Iterator[SimpleNamespace]:
    """These modules of the app, for the length of the block."""
    folder, before = str(APPS / app), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        found: dict[str, ModuleType] = {name: importlib.import_module(name) for name in names}
        yield SimpleNamespace(**found)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]
