"""The server's secret: what refresh tokens and the marks of known devices are derived from, the same in every process."""

import hmac
import secrets

from modelyard.domain.errors import Invalid
from modelyard.run.settings import Settings, explain
from modelyard.store.private_files import is_exposed, read_private, write_once

FILE = "server.secret"
SETTING = "auth.secret"
LEAST_CHARACTERS = 32
LEAST_DIFFERENT = 8
"""Characters that differ; even 32 hex digits drawn at random have fewer in less than one of a million draws."""
MEND = "Set auth.secret to what `openssl rand -base64 32` prints, or leave it out: a file of the data folder then holds one."
_EXAMPLES = (
    *("changeme", "change-me", "change_me", "change this", "changethis", "replace", "placeholder", "example", "default"),
    *("secret", "password", "passphrase", "insecure", "modelyard", "letmein", "qwerty", "your-", "your_"),
    *("abcdefgh", "01234567", "12345678", "87654321", "deadbeef"),
)


class ServerSecret:
    """Derives values that nobody else can; it never shows itself."""

    def __init__(self, text: str) -> None:
        self._key = text.encode()

    def mac(self, purpose: str, *told: object) -> str:
        """HMAC-SHA256 (RFC 2104) over the purpose and what is told, joined by `|`: 64 hex digits.

        All that is told but the last part must be free of `|`, so that two things never read the same.
        """
        text = "|".join((purpose, *map(str, told)))
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    def is_mac(self, mac: str, purpose: str, *told: object) -> bool:
        """Whether this is that value, in a time that tells nothing."""
        return hmac.compare_digest(self.mac(purpose, *told).encode(), mac.encode("utf-8", "surrogatepass"))


def server_secret(settings: Settings) -> ServerSecret:
    """The setting `auth.secret`; where it is not set, a file of the data folder, made at the first start.

    Raises:
        Invalid: `secret_short`, `secret_weak`, or `secret_exposed`: other users of this machine can read the file that holds it.
    """
    if settings.auth.secret is not None:
        _check_hidden(settings)
        text = settings.auth.secret.get_secret_value()
        _check(text, f"The setting {SETTING}")
        return ServerSecret(text)
    path = settings.data / "keys" / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        write_once(path, secrets.token_hex(32) + "\n")
    text = read_private(path, "secret_exposed").strip()
    _check(text, str(path))
    return ServerSecret(text)


def _check_hidden(settings: Settings) -> None:
    file = settings.data / "settings.toml"
    if file.exists() and is_exposed(file) and any(each.name == SETTING and each.source == str(file) for each in explain(settings)):
        raise Invalid("secret_exposed", f"Other users of this machine can read {file}, which holds {SETTING}.", f"Run: chmod 600 {file}")


def _check(text: str, where: str) -> None:
    if len(text) < LEAST_CHARACTERS:
        raise Invalid("secret_short", f"{where} has {len(text)} characters; it needs {LEAST_CHARACTERS} or more.", MEND)
    folded = text.casefold()
    if len(set(text)) < LEAST_DIFFERENT or text in (text + text)[1:-1] or any(example in folded for example in _EXAMPLES):
        raise Invalid("secret_weak", f"{where} can be guessed: it repeats itself, or holds a word of an example.", MEND)
