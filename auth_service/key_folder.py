"""The private halves of the signing keys: one PEM file each, in a folder that its user alone can enter."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from modelyard.domain.errors import Invalid, ModelyardError
from modelyard.domain.ids import new_id

FOLDER = "keys"
MOST_BYTES = 16_384
LEAST_BITS = 192
"""Of a private number: a random one of P-256 has fewer once in 2^64 keys, an example's or a broken generator's often."""


class KeyFolder:
    """Keeps, reads and removes private keys by their id.

    Raises:
        Invalid: `signing_key_unsafe`, other users can reach the keys.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder, folder.stat(), 0o700)

    def ids(self) -> list[str]:
        """Of every key that is here."""
        return sorted(path.stem for path in self._folder.glob("*.pem"))

    def write(self, kid: str, key: ec.EllipticCurvePrivateKey) -> None:
        """Keep the key; it is on disk once this returns, whole or not at all."""
        path = self._path(kid)
        fresh = path.with_suffix(f".{new_id()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(descriptor)
        fresh.rename(path)
        self._settle()

    def read(self, kid: str) -> ec.EllipticCurvePrivateKey | None:
        """The key; None where it is not here.

        Raises:
            Invalid: `signing_key_unsafe`, `signing_key_weak` or `signing_key_broken`.
        """
        path = self._path(kid)
        try:
            # A link could lead to a file that somebody else writes, and a pipe would hold whoever opens it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise broken(path, error.strerror) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise broken(path, "it is no file")
            _check_private(path, found, 0o600)
            return _parsed(path, os.read(descriptor, MOST_BYTES))
        finally:
            os.close(descriptor)

    def remove(self, kid: str) -> None:
        """Remove the key; doing it twice is no error."""
        self._path(kid).unlink(missing_ok=True)
        self._settle()

    def refusal(self, kid: str, why: str) -> ModelyardError:
        """The error of a key that cannot be used."""
        return broken(self._path(kid), why)

    def _path(self, kid: str) -> Path:
        return self._folder / f"{kid}.pem"

    def _settle(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def broken(path: Path, why: str | None) -> Invalid:
    """The error of a file that holds no key of ours."""
    return Invalid("signing_key_broken", f"{path} holds no signing key: {why}.", _REMOVE.format(path=path))


_REMOVE = "Run: rm {path} (the service makes another key, and its users log in again)"


def _parsed(path: Path, text: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The library's own words could quote the file.
        raise broken(path, "it is not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("signing_key_weak", f"The key in {path} is not of the curve P-256.", _REMOVE.format(path=path))
    if key.private_numbers().private_value.bit_length() < LEAST_BITS:
        raise Invalid("signing_key_weak", f"The key in {path} is a number that can be guessed.", _REMOVE.format(path=path))
    return key


def _check_private(path: Path, found: os.stat_result, mode: int) -> None:
    if found.st_uid != os.geteuid():
        raise Invalid("signing_key_unsafe", f"{path} belongs to another user.", f"Run: chown {os.geteuid()} {path}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Invalid("signing_key_unsafe", f"Other users of this machine can reach {path}.", f"Run: chmod {mode:o} {path}")
