"""Texts into CLIP's space: tokens by the checkpoint's own tokenizer, embeddings kept for the texts that come again."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from batching import Array
from images import Network
from problems import Problem, invalid
from tokenizers import Tokenizer

MOST_TEXTS = 1000
MOST_CHARACTERS = 1000
KEPT = 4096
AT_ONCE = 32
END = "<|endoftext|>"


class Texts:
    """The network of texts; loaded when the first one comes, since many calls carry none that is new.

    Args:
        folder: Holds `text.onnx` with the tensors beside it, and `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, Array] = OrderedDict()
        # One at a time: whoever asks for the same labels meanwhile finds them kept.
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="texts")

    @cached_property
    def _network(self) -> Network:
        return Network(self._folder / "text.onnx")

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.enable_truncation(int(self._network.facts["longest"]))
        # Behind its end nothing of a text is looked at.
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(END), pad_token=END)
        return tokenizer

    async def embed(self, texts: Sequence[str]) -> Array:
        """Unit vectors, float32 (texts, width), in their order.

        Raises:
            Problem: There are too many, or one is empty or too long.
        """
        _check(texts)
        async with self._turn:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            for start in range(0, len(new), AT_ONCE):
                some = new[start : start + AT_ONCE]
                rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, some)
                self._kept.update(zip(some, rows, strict=True))
            found = np.stack([self._kept[text] for text in texts])
            for text in texts:
                self._kept.move_to_end(text)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    async def count(self, texts: Sequence[str]) -> int:
        """How many tokens they have together, beginnings and ends among them."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._count, texts)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, texts: Sequence[str]) -> Array:
        encoded = self._tokenizer.encode_batch(list(texts))
        tokens = np.asarray([each.ids for each in encoded], np.int64)
        return unit(self._network(tokens))  # type: ignore[arg-type] # tokens are whole numbers

    def _count(self, texts: Sequence[str]) -> int:
        return sum(sum(each.attention_mask) for each in self._tokenizer.encode_batch(list(texts)))


def unit(rows: Array) -> Array:
    """The rows at length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def _check(texts: Sequence[str]) -> None:
    if not texts:
        raise invalid("texts", "must not be empty")
    if len(texts) > MOST_TEXTS:
        raise Problem(413, "too_many_texts", f"A call carries at most {MOST_TEXTS} texts.", "Send the rest in another call.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise invalid("texts", "must be texts that say something")
        if len(text) > MOST_CHARACTERS:
            raise invalid("texts", f"must have at most {MOST_CHARACTERS} characters each")
