"""Finds the weights that the platform mounts, and loads them once, when they are there."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from problems import Problem

RECORD = "weights.json"
FOLDER = Path(os.environ.get("MODELYARD_WEIGHTS", "/weights"))


class Closing(Protocol):
    """What is made of weights."""

    def close(self) -> None:
        """End its threads."""


Model = TypeVar("Model", bound=Closing)


class Weights(Generic[Model]):
    """One entry of the platform's list of weights, and the model that is made of it.

    Args:
        name: The entry, as `[weights] use` in modelyard.toml names it.
        load: Makes the model of a folder that holds `model.onnx` or others, and the JSON files of the checkpoint.
    """

    def __init__(self, name: str, load: Callable[[Path], Model]) -> None:
        self._name = name
        self._load = load
        self._loaded: Model | None = None
        self._loading = asyncio.Lock()

    @property
    def state(self) -> str:
        """`missing`, `found` or `loaded`."""
        if self._loaded is not None:
            return "loaded"
        return "found" if self._folder() else "missing"

    async def preload(self) -> None:
        """Load the model where its weights are there, so that the first call need not wait for it."""
        with suppress(Problem):
            await self.model()

    def close(self) -> None:
        """Close the model, where there is one."""
        if self._loaded is not None:
            self._loaded.close()

    async def model(self) -> Model:
        """The model, loaded at the first call.

        Raises:
            Problem: `weights_missing` or `weights_unusable`.
        """
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await asyncio.to_thread(self._made)
        return self._loaded

    def _made(self) -> Model:
        folder = self._folder()
        if folder is None:
            detail = f"The weights of {self._name} are not on this server yet."
            raise Problem(503, "weights_missing", detail, f"Run on the server: modelyard models pull {self._name}", retry_after_s=10)
        try:
            return self._load(folder)
        except Exception as error:
            print(f"the weights in {folder} cannot be loaded: {error!r}", flush=True)
            detail = f"The weights of {self._name} on this server cannot be loaded."
            mend = f"Run on the server: modelyard models pull {self._name} --again"
            raise Problem(503, "weights_unusable", detail, mend, retry_after_s=10) from error

    def _folder(self) -> Path | None:
        entry = FOLDER / self._name
        try:
            return entry / str(json.loads((entry / RECORD).read_bytes())["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no JSON object")
    return content
