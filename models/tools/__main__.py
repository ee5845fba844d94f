"""Writes the ONNX graphs of a checkpoint beside its tensors: `python models/tools FOLDER`.

The folder holds a checkpoint in the transformers format: `config.json`, `preprocessor_config.json`, `model.safetensors`. What comes
is a graph for ONNX Runtime that names the tensors in that very file; it needs neither torch nor transformers.
"""

import sys
from pathlib import Path

from checkpoint import CheckpointError
from export import export


def main() -> None:
    """Export the folder that the command line names."""
    try:
        written = export(Path(sys.argv[1]))
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    print(*written)


if __name__ == "__main__":
    main()
