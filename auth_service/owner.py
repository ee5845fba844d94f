"""The first administrator: `owner`, whose API key is a file of the data folder that its user alone can read."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from auth_service import repository
from modelyard.domain.accounts import ALL_SCOPES, Role
from modelyard.domain.api_keys import ApiKey, new_key, parse_key
from modelyard.domain.errors import Invalid
from modelyard.domain.ids import new_id
from modelyard.store import accounts
from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.database import Database

FILE = "owner.token"
USERNAME = "owner"
KEY_NAME = "owner.token"
"""What the key is called among the account's keys."""
MOST_BYTES = 1024


def owner_key(folder: Path) -> ApiKey:
    """The key of this data folder; made, and put on disk, where there is none yet.

    Raises:
        Invalid: `owner_token_unsafe`, other users can read the file; `owner_token_broken`, it holds no key.
    """
    path = folder / FILE
    # Two processes may start at once on an empty folder: the link, not the write, decides whose key it is.
    if not path.exists():
        _write(path, new_key())
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
        raise Invalid("owner_token_unsafe", f"Other users of this machine can read {path}.", f"Run: chmod 600 {path}")
    key = parse_key(path.read_bytes()[:MOST_BYTES].decode("ascii", "replace").strip())
    if key is None:
        raise Invalid("owner_token_broken", f"{path} holds no key.", "Remove the file; the next start writes a new key.")
    return key


def ensure_owner(database: Database, key: ApiKey, now: float) -> None:
    """Make the account of the first administrator where there is none, and the file's key one of its keys.

    A key that was revoked stays revoked, though its file be there.
    """
    with database.write() as session:
        account_id = accounts.ensure(session, USERNAME, now, Role.ADMIN)
        if session.get(ApiKeyRow, key.id) is None:
            repository.add_key(session, key, account_id, KEY_NAME, ALL_SCOPES, now)


def _write(path: Path, key: ApiKey) -> None:
    # A name that nobody had before: a process that died here may have left its own behind, under the same number.
    fresh = path.with_suffix(f".{new_id()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.text + "\n")
        file.flush()
        os.fsync(descriptor)
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
