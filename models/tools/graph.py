"""Builds an ONNX graph whose weights stay where they are: in the checkpoint's own safetensors file.

ONNX lets an initializer name a file, an offset and a length (`external_data`); a safetensors file holds plain little-endian
tensors at known offsets. So nothing is converted or copied, and all processes that load the graph map the same pages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from checkpoint import TENSORS, Checkpoint, Tensor
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
_TYPES = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "I64": TensorProto.INT64,
    "I32": TensorProto.INT32,
}


class Graph:
    """A graph in the making; each method returns the name of the value that it adds."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One operator with one result."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int | None) -> str:
        """A tensor of the checkpoint as float32, by its name there.

        Raises:
            CheckpointError: There is none, or it has another shape.
        """
        tensor = self._checkpoint.tensor(name, *shape)
        if name not in self._initializers:
            self._initializers[name] = _external(name, tensor)
        return name if tensor.kind == "F32" else self.op("Cast", name, to=TensorProto.FLOAT)

    def constant(self, value: object, kind: type[np.generic]) -> str:
        """A small constant, kept in the graph itself."""
        array = np.asarray(value, dtype=kind)
        name = f"constant_{array.dtype}_{array.tobytes().hex()[:64]}_{'x'.join(map(str, array.shape))}_{array.size}"
        if array.size > 8:  # noqa: PLR2004 - a longer one's bytes do not fit into its name
            name = f"constant_{len(self._initializers)}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """A list of whole numbers, for shapes and axes."""
        return self.constant(values, np.int64)

    def linear(self, value: str, name: str, width_in: int, width_out: int, *, bias: bool = True) -> str:
        """`nn.Linear` over two dimensions: (rows, in) becomes (rows, out)."""
        inputs = [value, self.weight(f"{name}.weight", width_out, width_in)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", width_out))
        return self.op("Gemm", *inputs, transB=1)

    def normed(self, value: str, name: str, width: int, epsilon: float) -> str:
        """`nn.LayerNorm` over the last dimension."""
        scale, shift = self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width)
        return self.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=epsilon)

    def write(
        self,
        path: Path,
        inputs: Sequence[onnx.ValueInfoProto],
        result: str,
        output: onnx.ValueInfoProto,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Write the graph; `result` is renamed to what `output` names, and `facts` are told beside it."""
        nodes = [*self._nodes, helper.make_node("Identity", [result], [output.name], name=output.name)]
        made = helper.make_graph(nodes, path.stem, list(inputs), [output], list(self._initializers.values()))
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="modelyard")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(facts or {}))
        path.write_bytes(model.SerializeToString(deterministic=True))


def _external(name: str, tensor: Tensor) -> onnx.TensorProto:
    made = TensorProto(name=name, data_type=_TYPES[tensor.kind], dims=tensor.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", TENSORS), ("offset", str(tensor.offset)), ("length", str(tensor.length))):
        made.external_data.add(key=key, value=value)
    return made
