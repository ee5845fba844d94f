"""API keys: `my_{id}_{secret}_{crc32}`, so that a mistyped one is told before anything is looked up."""

import hmac
import secrets
import zlib
from dataclasses import dataclass
from hashlib import sha256

PREFIX = "my"
ID_LENGTH = 12
SECRET_LENGTH = 40
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, repr=False)
class ApiKey:
    """A key in full; it is shown once, and kept as the SHA-256 of its secret.

    Args:
        id: 12 characters that find the row.
        secret: 40 characters of 62, 238 bits.
    """

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The key as its holder sends it."""
        return f"{PREFIX}_{self.id}_{self.secret}_{_checksum(self.id, self.secret)}"

    @property
    def sha256(self) -> str:
        """Of the secret alone, 64 hex digits: what a table keeps."""
        return sha256(self.secret.encode()).hexdigest()

    def matches(self, kept: str) -> bool:
        """Whether `kept` is the hash of this key's secret, in a time that tells nothing."""
        return hmac.compare_digest(self.sha256, kept)

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r})"


def new_key() -> ApiKey:
    """A key that nobody knows yet."""
    return ApiKey(_random(ID_LENGTH), _random(SECRET_LENGTH))


def parse_key(text: str) -> ApiKey | None:
    """The key, or None where the text is not one."""
    parts = text.split("_")
    if len(parts) != len(("prefix", "id", "secret", "checksum")) or parts[0] != PREFIX or not text.isascii():
        return None
    _, key_id, secret, checksum = parts
    if (len(key_id), len(secret)) != (ID_LENGTH, SECRET_LENGTH) or not hmac.compare_digest(_checksum(key_id, secret), checksum):
        return None
    return ApiKey(key_id, secret)


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
