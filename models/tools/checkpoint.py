"""Reads a checkpoint in the transformers format: its JSON files, and where each tensor lies in its safetensors file.

The layout of a safetensors file: eight bytes that say how long the header is, the header as JSON, then the tensors.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, TENSORS = "config.json", "model.safetensors"
MOST_HEADER_BYTES = 16 * 1024 * 1024
MOST_JSON_BYTES = 16 * 1024 * 1024

_SCALARS = {"F32": "<f", "F16": "<e"}
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}


class CheckpointError(ValueError):
    """The folder is no checkpoint that can be exported; the message says what is wrong with it, for people."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies.

    Args:
        kind: `F32`, `F16`, `BF16`, `I64` or `I32`, little-endian.
        offset: From the beginning of the file.
    """

    kind: str
    shape: tuple[int, ...]
    offset: int
    length: int


class Checkpoint:
    """A folder with `config.json` and `model.safetensors`; nothing in it is ever run.

    Raises:
        CheckpointError: It is not whole, or not what it says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / TENSORS).is_file():
            raise CheckpointError(f"{folder} has no {TENSORS}; pickled weights (.bin, .pt) are not read")
        self.config = read_json(folder / CONFIG)
        self.tensors = _tensors(folder / TENSORS)

    def tensor(self, name: str, *shape: int | None) -> Tensor:
        """The tensor of this name; None in `shape` stands for any length.

        Raises:
            CheckpointError: There is none, or it has another shape.
        """
        found = self.tensors.get(name)
        if found is None:
            raise CheckpointError(f"{TENSORS} has no tensor {name}")
        fits = not shape or (len(shape) == len(found.shape) and all(a in {None, b} for a, b in zip(shape, found.shape, strict=True)))
        if not fits:
            raise CheckpointError(f"{name} has the shape {list(found.shape)}; expected {[each or 'any' for each in shape]}")
        return found

    def scalar(self, name: str) -> float:
        """The value of a tensor that has one.

        Raises:
            CheckpointError: There is none.
        """
        tensor = self.tensor(name)
        if math.prod(tensor.shape) != 1 or tensor.kind not in _SCALARS:
            raise CheckpointError(f"{name} is no single number")
        with (self.folder / TENSORS).open("rb") as file:
            file.seek(tensor.offset)
            value: float = struct.unpack(_SCALARS[tensor.kind], file.read(tensor.length))[0]
        if not math.isfinite(value):
            raise CheckpointError(f"{name} is {value}")
        return value

    def whole(self, key: str, within: dict[str, Any] | None = None) -> int:
        """A positive whole number of the configuration.

        Raises:
            CheckpointError: It is none.
        """
        value = (self.config if within is None else within).get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise CheckpointError(f"{CONFIG}: {key} is {value!r}; expected a positive whole number")
        return value

    def small(self, key: str, usual: float, within: dict[str, Any] | None = None) -> float:
        """A number between 0 and 1 of the configuration, or the usual one where it says none.

        Raises:
            CheckpointError: It is none.
        """
        value = (self.config if within is None else within).get(key, usual)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise CheckpointError(f"{CONFIG}: {key} is {value!r}; expected a number between 0 and 1")
        return float(value)

    def one_of(self, key: str, known: Sequence[str], within: dict[str, Any] | None = None) -> str:
        """A word of the configuration, the first known one where it says none.

        Raises:
            CheckpointError: It is another.
        """
        value = (self.config if within is None else within).get(key, known[0])
        if not isinstance(value, str) or value not in known:
            raise CheckpointError(f"{CONFIG}: {key} is {value!r}; known are {', '.join(known)}")
        return value


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        CheckpointError: There is no such file, or it holds something else.
    """
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise CheckpointError(f"{path.name} is larger than {MOST_JSON_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object")
    return content


def _tensors(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0  # noqa: PLR2004 - the format's own eight bytes
        if not 1 < length <= min(MOST_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path.name} is no safetensors file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path.name} is no safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name} is no safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(name, told, 8 + length, size) for name, told in header.items()}


def _tensor(name: str, told: Any, begin: int, size: int) -> Tensor:
    try:
        kind, shape, (first, last) = told["dtype"], tuple(told["shape"]), told["data_offsets"]
        whole = all(type(each) is int and each >= 0 for each in (*shape, first, last))
        fits = whole and first <= last <= size - begin and math.prod(shape) * _WIDTHS.get(kind, 0) == last - first
    except (TypeError, KeyError, ValueError):
        fits = False
    if not fits:
        raise CheckpointError(f"the header of {TENSORS} describes {name[:200]!r} wrongly, or in a type that is not read")
    return Tensor(kind, shape, begin + first, last - first)
