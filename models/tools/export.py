"""Writes the ONNX graphs of a checkpoint beside its tensors: reads which network it is, and leaves the rest to that network's module."""

from pathlib import Path

import clip
import mobilenet_v2
import onnx
from checkpoint import Checkpoint, CheckpointError, read_json

PREPROCESSOR = "preprocessor_config.json"
KNOWN = ("mobilenet_v2", "clip")


def export(folder: Path) -> list[str]:
    """Write the graphs, and return the names of their files.

    Raises:
        CheckpointError: It is no checkpoint, not whole, or of a network that is not known.
    """
    checkpoint = Checkpoint(folder)
    kind = checkpoint.config.get("model_type")
    if kind == "mobilenet_v2":
        mobilenet_v2.write(checkpoint, folder, *_input_size(read_json(folder / PREPROCESSOR)))
        written = ["model.onnx"]
    elif kind == "clip":
        written = clip.write(checkpoint, folder)
    else:
        raise CheckpointError(f"networks of the type {kind!r} are not known; known are {', '.join(KNOWN)}")
    for name in written:
        try:
            onnx.checker.check_model(str(folder / name), full_check=True)
        except Exception as error:
            raise CheckpointError(f"the tensors do not fit together: {str(error).strip().splitlines()[-1][:300]}") from error
    return written


def _input_size(config: dict[str, object]) -> tuple[int, int]:
    """Height and width of what the network gets."""
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    if isinstance(size, int):
        return size, size
    try:
        height, width = int(size["height"]), int(size["width"])  # type: ignore[index] # whatever it is, it is looked at here
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{PREPROCESSOR} does not say the size of the picture") from error
    return height, width
