"""A peer of the built-in classifier: LitServe over the same graph, `python peer_litserve.py PORT BATCH WEIGHTS APP`."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found] # in an environment of its own
import numpy as np
import onnxruntime

PORT, BATCH, WEIGHTS, APP = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
sys.path.insert(0, APP)


class Classifier(litserve.LitAPI):  # type: ignore[misc] # as above
    """Decodes and preprocesses with the app's own modules."""

    def setup(self, device: str) -> None:
        """Load the graph in one thread, as the app does."""
        del device
        from pictures import read_picture  # type: ignore[import-not-found] # noqa: PLC0415 - in the worker alone
        from preprocessing import Preprocessing  # type: ignore[import-not-found] # noqa: PLC0415 - as above

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(WEIGHTS / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._read, self._steps = read_picture, Preprocessing.read(json.loads((WEIGHTS / "preprocessor_config.json").read_text()))
        self._labels = json.loads((WEIGHTS / "config.json").read_text())["id2label"]

    def decode_request(self, request: dict[str, Any]) -> Any:
        """The pixels of the image."""
        return self._steps(self._read(base64.b64decode(request["image"]))[0])

    def batch(self, inputs: list[Any]) -> Any:
        """Several images as one input."""
        return np.stack(inputs)

    def unbatch(self, output: Any) -> Any:
        """Their logits, one by one."""
        return list(output)

    def predict(self, x: Any) -> Any:
        """The logits."""
        (logits,) = self._session.run(None, {"pixel_values": x if BATCH > 1 else x[None]})
        return logits if BATCH > 1 else logits[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The best label."""
        chances = np.exp(output - output.max())
        best = int(chances.argmax())
        return {"predictions": [{"label": self._labels[str(best)], "score": float(chances[best] / chances.sum())}]}


if __name__ == "__main__":
    more = {"max_batch_size": BATCH, "batch_timeout": 0.005} if BATCH > 1 else {}
    server = litserve.LitServer(Classifier(**more), accelerator="cpu", workers_per_device=2)
    server.run(port=PORT, host="127.0.0.1", generate_client_file=False, log_level="error")
