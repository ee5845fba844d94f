"""The graph of MobileNetV2 (Sandler et al., 2018) as the checkpoint's configuration describes it."""

from pathlib import Path

import numpy as np
from checkpoint import Checkpoint
from graph import Graph
from onnx import TensorProto, helper

STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
"""Of the sixteen blocks, where nothing keeps the picture large (`output_stride` 32)."""
_ACTIVATIONS = ("relu6", "relu")


def write(checkpoint: Checkpoint, out: Path, height: int, width: int) -> None:
    """Write `model.onnx`: `pixel_values` float32 (batch, 3, height, width) to `logits` float32 (batch, classes).

    Raises:
        CheckpointError: The checkpoint is another network, or not whole.
    """
    network = _Network(checkpoint, height, width)
    logits, classes = network.logits()
    channels = checkpoint.whole("num_channels")
    network.graph.write(
        out / "model.onnx",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", channels, height, width])],
        logits,
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
    )


class _Network:
    """The layers, with the size of the picture between them: TensorFlow's padding depends on it."""

    def __init__(self, checkpoint: Checkpoint, height: int, width: int) -> None:
        config = checkpoint.config
        self.graph = Graph(checkpoint)
        self._checkpoint = checkpoint
        self._size = (height, width)
        self._padded_as_tf = bool(config.get("tf_padding", True))
        self._epsilon = checkpoint.small("layer_norm_eps", 0.001)
        self._first_is_expansion = bool(config.get("first_layer_is_expansion", True))
        self._output_stride = checkpoint.whole("output_stride")
        self._activation = checkpoint.one_of("hidden_act", _ACTIVATIONS)

    def logits(self) -> tuple[str, int]:
        """The name of the result, and how many classes it has."""
        value = self._stem("pixel_values")
        stride, dilation = 2, 1
        for number, own in enumerate(STRIDES):
            if stride == self._output_stride:
                value = self._block(value, f"mobilenet_v2.layer.{number}", 1, dilation)
                dilation *= own
            else:
                value = self._block(value, f"mobilenet_v2.layer.{number}", own, 1)
                stride *= own
        value = self._convolved(value, "mobilenet_v2.conv_1x1")
        pooled = self.graph.op("Flatten", self.graph.op("GlobalAveragePool", value))
        classes, features = self._checkpoint.tensor("classifier.weight", None, None).shape
        return self.graph.linear(pooled, "classifier", features, classes), classes

    def _stem(self, value: str) -> str:
        name = "mobilenet_v2.conv_stem"
        value = self._convolved(value, f"{name}.first_conv", stride=2)
        if not self._first_is_expansion:
            value = self._convolved(value, f"{name}.expand_1x1")
        value = self._convolved(value, f"{name}.conv_3x3", depthwise=True)
        return self._convolved(value, f"{name}.reduce_1x1", active=False)

    def _block(self, value: str, name: str, stride: int, dilation: int) -> str:
        expanded = self._convolved(value, f"{name}.expand_1x1")
        seen = self._convolved(expanded, f"{name}.conv_3x3", stride=stride, dilation=dilation, depthwise=True)
        reduced = self._convolved(seen, f"{name}.reduce_1x1", active=False)
        taken = self._checkpoint.tensor(f"{name}.expand_1x1.convolution.weight").shape[1]
        given = self._checkpoint.tensor(f"{name}.reduce_1x1.convolution.weight").shape[0]
        return self.graph.op("Add", value, reduced) if stride == 1 and taken == given else reduced

    def _convolved(self, value: str, name: str, *, stride: int = 1, dilation: int = 1, depthwise: bool = False, active: bool = True) -> str:
        weight = f"{name}.convolution.weight"
        given, _, kernel, _ = self._checkpoint.tensor(weight, None, None, None, None).shape
        pads = self._pads(kernel, stride, dilation)
        value = self.graph.op(
            "Conv",
            value,
            self.graph.weight(weight),
            strides=[stride, stride],
            dilations=[dilation, dilation],
            group=given if depthwise else 1,
            kernel_shape=[kernel, kernel],
            pads=pads,
        )
        reach = dilation * (kernel - 1)
        high, wide = self._size
        self._size = ((high + pads[0] + pads[2] - reach - 1) // stride + 1, (wide + pads[1] + pads[3] - reach - 1) // stride + 1)
        parts = [self.graph.weight(f"{name}.normalization.{part}", given) for part in ("weight", "bias", "running_mean", "running_var")]
        value = self.graph.op("BatchNormalization", value, *parts, epsilon=self._epsilon)
        return self._activated(value) if active else value

    def _activated(self, value: str) -> str:
        if self._activation == "relu":
            return self.graph.op("Relu", value)
        return self.graph.op("Clip", value, self.graph.constant(0, np.float32), self.graph.constant(6, np.float32))

    def _pads(self, kernel: int, stride: int, dilation: int) -> list[int]:
        """Top, left, bottom, right; TensorFlow's `SAME` puts the odd one behind."""
        if not self._padded_as_tf:
            return [(kernel - 1) // 2 * dilation] * 4
        before, behind = [], []
        for length in self._size:
            along = max(kernel - (stride if length % stride == 0 else length % stride), 0)
            before.append(along // 2 * dilation)
            behind.append((along - along // 2) * dilation)
        return [*before, *behind]
