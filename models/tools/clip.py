"""The two graphs of CLIP (Radford et al., 2021), of images and of texts, as the checkpoint's configuration describes them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import Checkpoint, CheckpointError
from graph import Graph
from onnx import TensorProto, helper

IMAGE, TEXT = "image.onnx", "text.onnx"
SCALE = "logit_scale"
"""The name under which the image's graph tells by what similarities are multiplied."""
OLD_END = 2
"""The `eos_token_id` of older configurations, which is wrong: the end is then the token with the highest number."""

# What a configuration leaves out is what the library that wrote it takes for granted.
_TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8} | {
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_VISION = {"num_channels": 3, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12} | {
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def write(checkpoint: Checkpoint, out: Path) -> list[str]:
    """Write both, and return their names.

    `image.onnx`: `pixel_values` float32 (batch, 3, size, size) to `image_embeds` float32 (batch, width), not normalized.
    `text.onnx`: `input_ids` int64 (batch, tokens) to `text_embeds`; texts that end early are filled up behind their end.

    Raises:
        CheckpointError: The checkpoint is another network, or not whole.
    """
    width = checkpoint.tensor("visual_projection.weight", None, None).shape[0]
    _Images(checkpoint, _part(checkpoint, "vision_config", _VISION)).write(out / IMAGE, width)
    _Texts(checkpoint, _part(checkpoint, "text_config", _TEXT)).write(out / TEXT, width)
    return [IMAGE, TEXT]


def _part(checkpoint: Checkpoint, name: str, usual: dict[str, Any]) -> dict[str, Any]:
    told = checkpoint.config.get(name) or {}
    if not isinstance(told, dict):
        raise CheckpointError(f"config.json: {name} is no table")
    return usual | {key: value for key, value in told.items() if key in usual and value is not None}


class _Tower:
    """What both have: layers of attention over (batch, tokens, width)."""

    def __init__(self, checkpoint: Checkpoint, config: dict[str, Any], prefix: str) -> None:
        self.graph = Graph(checkpoint)
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.width = checkpoint.whole("hidden_size", config)
        self._inner = checkpoint.whole("intermediate_size", config)
        self._layers = checkpoint.whole("num_hidden_layers", config)
        self._heads = checkpoint.whole("num_attention_heads", config)
        self._activation = checkpoint.one_of("hidden_act", ("quick_gelu", "gelu"), config)
        self._epsilon = checkpoint.small("layer_norm_eps", 1e-5, config)
        if self.width % self._heads:
            raise CheckpointError(f"config.json: {self._heads} heads do not share a width of {self.width}")

    def normed(self, value: str, name: str) -> str:
        """A normalization of the tower."""
        return self.graph.normed(value, f"{self.prefix}.{name}", self.width, self._epsilon)

    def encoded(self, value: str, mask: str | None = None) -> str:
        """All layers; `mask` is added to the attention of every token (rows) to every other."""
        for number in range(self._layers):
            name = f"encoder.layers.{number}"
            value = self.graph.op("Add", value, self._attended(self.normed(value, f"{name}.layer_norm1"), name, mask))
            value = self.graph.op("Add", value, self._thought(self.normed(value, f"{name}.layer_norm2"), name))
        return value

    def _attended(self, value: str, name: str, mask: str | None) -> str:
        graph, head = self.graph, self.width // self._heads
        rows = graph.op("Shape", value, start=0, end=2)
        flat = graph.op("Reshape", value, graph.ints(-1, self.width))
        by_heads = graph.op("Concat", rows, graph.ints(self._heads, head), axis=0)

        def part(which: str, order: list[int]) -> str:
            made = graph.linear(flat, f"{self.prefix}.{name}.self_attn.{which}_proj", self.width, self.width)
            return graph.op("Transpose", graph.op("Reshape", made, by_heads), perm=order)

        scaled = graph.op("Mul", part("q", [0, 2, 1, 3]), graph.constant(1 / math.sqrt(head), np.float32))
        weights = graph.op("MatMul", scaled, part("k", [0, 2, 3, 1]))
        if mask is not None:
            weights = graph.op("Add", weights, mask)
        seen = graph.op("MatMul", graph.op("Softmax", weights, axis=-1), part("v", [0, 2, 1, 3]))
        together = graph.op("Reshape", graph.op("Transpose", seen, perm=[0, 2, 1, 3]), graph.ints(-1, self.width))
        made = graph.linear(together, f"{self.prefix}.{name}.self_attn.out_proj", self.width, self.width)
        return graph.op("Reshape", made, graph.op("Concat", rows, graph.ints(self.width), axis=0))

    def _thought(self, value: str, name: str) -> str:
        graph = self.graph
        shape = graph.op("Shape", value)
        flat = graph.op("Reshape", value, graph.ints(-1, self.width))
        inner = self._activated(graph.linear(flat, f"{self.prefix}.{name}.mlp.fc1", self.width, self._inner))
        return graph.op("Reshape", graph.linear(inner, f"{self.prefix}.{name}.mlp.fc2", self._inner, self.width), shape)

    def _activated(self, value: str) -> str:
        graph = self.graph
        if self._activation == "quick_gelu":
            gate = graph.op("Sigmoid", graph.op("Mul", value, graph.constant(1.702, np.float32)))
            return graph.op("Mul", value, gate)
        spread = graph.op("Erf", graph.op("Div", value, graph.constant(math.sqrt(2), np.float32)))
        doubled = graph.op("Mul", value, graph.op("Add", spread, graph.constant(1, np.float32)))
        return graph.op("Mul", doubled, graph.constant(0.5, np.float32))


class _Images(_Tower):
    def __init__(self, checkpoint: Checkpoint, config: dict[str, Any]) -> None:
        super().__init__(checkpoint, config, "vision_model")
        self._channels = checkpoint.whole("num_channels", config)
        self._size = checkpoint.whole("image_size", config)
        self._patch = checkpoint.whole("patch_size", config)

    def write(self, path: Path, width: int) -> None:
        graph, patch = self.graph, self._patch
        tokens = (self._size // patch) ** 2 + 1
        kernel = graph.weight("vision_model.embeddings.patch_embedding.weight", self.width, self._channels, patch, patch)
        patches = graph.op("Conv", "pixel_values", kernel, strides=[patch, patch], kernel_shape=[patch, patch])
        flat = graph.op("Reshape", patches, graph.ints(0, self.width, -1))
        flat = graph.op("Transpose", flat, perm=[0, 2, 1])
        batch = graph.op("Shape", flat, start=0, end=1)
        first = graph.op("Reshape", graph.weight("vision_model.embeddings.class_embedding", self.width), graph.ints(1, 1, self.width))
        first = graph.op("Expand", first, graph.op("Concat", batch, graph.ints(1, self.width), axis=0))
        positions = graph.weight("vision_model.embeddings.position_embedding.weight", tokens, self.width)
        value = graph.op("Add", graph.op("Concat", first, flat, axis=1), positions)
        value = self.encoded(self.normed(value, "pre_layrnorm"))  # the checkpoints' own spelling
        pooled = graph.op("Gather", value, graph.constant(0, np.int64), axis=1)
        embeds = graph.linear(self.normed(pooled, "post_layernorm"), "visual_projection", self.width, width, bias=False)
        graph.write(
            path,
            [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", self._channels, self._size, self._size])],
            embeds,
            helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", width]),
            {SCALE: repr(math.exp(self.checkpoint.scalar(SCALE)))},
        )


class _Texts(_Tower):
    def __init__(self, checkpoint: Checkpoint, config: dict[str, Any]) -> None:
        super().__init__(checkpoint, config, "text_model")
        self._words = checkpoint.whole("vocab_size", config)
        self._longest = checkpoint.whole("max_position_embeddings", config)
        self._end = checkpoint.whole("eos_token_id", config)

    def write(self, path: Path, width: int) -> None:
        graph = self.graph
        words = graph.op("Gather", graph.weight("text_model.embeddings.token_embedding.weight", self._words, self.width), "input_ids")
        length = graph.op("Shape", "input_ids", start=1, end=2)
        places = graph.weight("text_model.embeddings.position_embedding.weight", self._longest, self.width)
        places = graph.op("Slice", places, graph.ints(0), length, graph.ints(0))
        # A token sees itself and those before it.
        later = np.triu(np.full((self._longest, self._longest), np.finfo(np.float32).min), k=1)
        mask = graph.constant(later, np.float32)
        mask = graph.op("Slice", mask, graph.ints(0, 0), graph.op("Concat", length, length, axis=0), graph.ints(0, 1))
        value = self.normed(self.encoded(graph.op("Add", words, places), mask), "final_layer_norm")
        pooled = graph.op("GatherND", value, self._ends(), batch_dims=1)
        embeds = graph.linear(pooled, "text_projection", self.width, width, bias=False)
        graph.write(
            path,
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            embeds,
            helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", width]),
            {"longest": str(self._longest)},
        )

    def _ends(self) -> str:
        """Where each text ends, as int64 (batch, 1)."""
        graph = self.graph
        if self._end == OLD_END:
            marks = graph.op("Cast", "input_ids", to=TensorProto.INT32)
        else:
            marks = graph.op("Cast", graph.op("Equal", "input_ids", graph.constant(self._end, np.int64)), to=TensorProto.INT32)
        return graph.op("ArgMax", marks, axis=1, keepdims=1)
