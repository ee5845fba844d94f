"""Names and ids: parsed once at the edge, typed ever after."""

import os
import re
import time
from typing import NewType

from modelyard.domain.errors import Invalid

Owner = NewType("Owner", str)
ModelName = NewType("ModelName", str)
ModelId = NewType("ModelId", str)
VersionId = NewType("VersionId", str)
BuildId = NewType("BuildId", str)
Digest = NewType("Digest", str)
"""A SHA-256, 64 lower-case hex digits."""

RESERVED = frozenset({"modelyard", "owner", "admin", "root", "system", "api", "auth", "static", "health", "apps", "www"})
PLATFORM = Owner("modelyard")
"""Whose the built-in models are; everybody who is signed in may call them."""
RULE = "1 to 40 of a-z, 0-9 and single hyphens, beginning and ending with a letter or digit"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def new_id() -> str:
    """A UUID of version 7 (RFC 9562) as 36 characters: ids made later sort later."""
    stamp = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (stamp << 80) | (0x7 << 76) | (((noise >> 62) & 0xFFF) << 64) | (0b10 << 62) | (noise & ((1 << 62) - 1))
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def instance_name(version_id: str) -> str:
    """The name that a version's running copy has under every runtime."""
    return f"app-{version_id}"


def suggest(text: str) -> str:
    """The nearest name that the rule allows; `model` where nothing of the text is left."""
    cleaned = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9]+", "-", text.lower())).strip("-")[:40].strip("-")
    return cleaned or "model"


def label(name: str, model_id: str) -> str:
    """A model's label in host names: its name cut to 20 characters, and the last 12 hex digits of its id, which nobody guesses."""
    return f"{name[:20].rstrip('-')}-{model_id[-12:]}"


def parse_owner(text: str) -> Owner:
    """The username as a typed value.

    Raises:
        Invalid: `name_invalid` or `name_reserved`, with a suggestion.
    """
    _check(text, "username")
    if text in RESERVED:
        raise Invalid(
            "name_reserved",
            "This username is reserved for the platform.",
            f"Choose another one, for example {text}-1.",
            errors=[{"field": "username", "message": "reserved"}],
        )
    return Owner(text)


def parse_model_name(text: str) -> ModelName:
    """The model's name as a typed value.

    Raises:
        Invalid: `name_invalid`, with a suggestion.
    """
    _check(text, "model_name")
    return ModelName(text)


def is_digest(text: str) -> bool:
    """Whether the text is a SHA-256 as we write it."""
    return bool(_DIGEST.fullmatch(text))


def is_name(text: str) -> bool:
    """Whether the text follows the rule for usernames and model names."""
    return bool(_NAME.fullmatch(text)) and "--" not in text


def _check(text: str, field: str) -> None:
    if not is_name(text):
        raise Invalid(
            "name_invalid",
            f"The {field} must be {RULE}.",
            f"Try {suggest(text)!r}.",
            errors=[{"field": field, "message": RULE, "suggestion": suggest(text)}],
        )
