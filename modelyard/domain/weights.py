"""The platform's own list of weights: what `[weights] use` and `modelyard models pull` may name."""

from collections.abc import Mapping
from dataclasses import dataclass

TENSORS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the list.

    Args:
        about: What it is, for people.
        hub: Where the checkpoint is published, `owner/name` on a hub of models.
        revision: Branch, tag or commit there.
        files: What is taken of it; all of them are needed.
    """

    name: str
    about: str
    hub: str
    revision: str
    files: tuple[str, ...]


_IMAGE_FILES = ("config.json", "preprocessor_config.json", TENSORS)

ENTRIES: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("mobilenet", "MobileNetV2, ImageNet classification", "google/mobilenet_v2_1.0_224", "main", _IMAGE_FILES),
        Entry(
            "clip",
            "CLIP ViT-B/32, images and texts in one space",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "main",
            (*_IMAGE_FILES, "tokenizer.json"),
        ),
    )
}
