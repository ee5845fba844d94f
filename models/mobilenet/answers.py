"""What an answer about labels holds: the best ones, those above a threshold, one image's or several images'."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bodies import Body
from numpy.typing import NDArray
from problems import Problem, invalid

MOST_PREDICTIONS = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """Which predictions an answer holds: the `top_k` best ones of those that reach the threshold."""

    top_k: int = 5
    confidence_threshold: float = 0.0

    @classmethod
    def read(cls, options: dict[str, Any]) -> "Choice":
        """The choice of a call.

        Raises:
            Problem: It says what cannot be.
        """
        usual = cls()
        try:
            top_k = int(options.get("top_k", usual.top_k))
            threshold = float(options.get("confidence_threshold", usual.confidence_threshold))
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid("top_k and confidence_threshold", "must be numbers") from error
        if not 1 <= top_k <= MOST_PREDICTIONS:
            raise invalid("top_k", f"must be between 1 and {MOST_PREDICTIONS}")
        if not 0 <= threshold <= 1:
            raise invalid("confidence_threshold", "must be between 0 and 1")
        return cls(top_k, threshold)

    def of(self, scores: NDArray[np.float32], labels: Sequence[str]) -> list[dict[str, Any]]:
        """The chosen predictions, the best one first."""
        order = np.argsort(-scores, kind="stable")[: self.top_k]
        return [
            {"label": labels[index], "index": int(index), "score": round(float(scores[index]), 6)}
            for index in order
            if scores[index] >= self.confidence_threshold
        ]


async def about(body: Body, answer: Callable[[bytes], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """The answer about a call's images: of one its own members, of several a list in their order.

    In a list, an image that cannot be read has its own problem as `error`.

    Raises:
        Problem: There is no image, or the only one cannot be read.
    """
    if not body.images:
        raise Problem(422, "no_image", "The call carries no image.", "Send one as the form's field `file`, as the body, or as `image`.")
    if len(body.images) == 1 and not body.several:
        return await answer(body.images[0])

    async def one(image: bytes) -> dict[str, Any]:
        try:
            return await answer(image)
        except Problem as problem:
            return {"error": problem.document()}

    return {"results": list(await asyncio.gather(*(one(image) for image in body.images)))}
