"""Turns a picture into what the network was trained on, step by step as the checkpoint's `preprocessor_config.json` says."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
"""float32 (3, height, width), as the network takes them."""

_SHORTEST, _HEIGHT, _WIDTH = "shortest_edge", "height", "width"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The steps: resize, crop the middle, rescale, normalize; None where a step is left out.

    Args:
        shortest_edge: The length that the shorter edge gets, where the shape is kept.
        exact: Height and width, where it is not.
        crop: Height and width of what is cut out of the middle.
        resample: Pillow's number of the filter.
        scale: What each value between 0 and 255 is multiplied by.
        mean: Taken off each channel, before it is divided by `deviation`.
    """

    shortest_edge: int | None
    exact: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: Image.Resampling
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Preprocessing":
        """The steps that an image processor of the transformers library takes by this configuration."""
        size, resizes = config.get("size", {}), config.get("do_resize", True)
        if isinstance(size, int):
            size = {_SHORTEST: size}
        crop = config.get("crop_size") if config.get("do_center_crop") else None
        if isinstance(crop, int):
            crop = {_HEIGHT: crop, _WIDTH: crop}
        normalizes = config.get("do_normalize", True)
        return cls(
            shortest_edge=int(size[_SHORTEST]) if resizes and _SHORTEST in size else None,
            exact=(int(size[_HEIGHT]), int(size[_WIDTH])) if resizes and _HEIGHT in size else None,
            crop=(int(crop[_HEIGHT]), int(crop[_WIDTH])) if crop else None,
            resample=Image.Resampling(int(config.get("resample", Image.Resampling.BILINEAR))),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=tuple(map(float, config["image_mean"])) if normalizes else (0.0, 0.0, 0.0),
            deviation=tuple(map(float, config["image_std"])) if normalizes else (1.0, 1.0, 1.0),
        )

    def __call__(self, picture: Image.Image) -> Pixels:
        """What the network takes, of a picture in RGB."""
        if self.exact is not None:
            picture = picture.resize(self.exact[::-1], self.resample)
        elif self.shortest_edge is not None:
            picture = picture.resize(_by_shortest(picture.size, self.shortest_edge), self.resample)
        if self.crop is not None:
            picture = _middle(picture, *self.crop)
        values = np.asarray(picture, dtype=np.float32) * np.float32(self.scale)
        values = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.deviation, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))


def _by_shortest(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return shortest, max(1, int(shortest * height / width))
    return max(1, int(shortest * width / height)), shortest


def _middle(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The middle; black where the picture is too small for it."""
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.crop((left, top, left + width, top + height))
