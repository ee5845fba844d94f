"""Writes the ONNX graphs of a checkpoint beside its tensors: `python models/tools FOLDER`.

The folder holds a checkpoint in the transformers format: `config.json`, `preprocessor_config.json`, `model.safetensors`. What comes
is a graph for ONNX Runtime that names the tensors in that very file; it needs neither torch nor transformers.
"""

import sys
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
        onnx.checker.check_model(str(folder / name))
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


def main() -> None:
    """Export the folder that the command line names."""
    try:
        written = export(Path(sys.argv[1]))
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    print(*written)


if __name__ == "__main__":
    main()
