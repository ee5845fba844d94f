"""The first administrator: `owner`, whose API key is a file of the data folder that its user alone can read."""

from pathlib import Path

from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from modelyard.domain.accounts import ALL_SCOPES, AccountState, Role
from modelyard.domain.api_keys import ApiKey, new_key, parse_key
from modelyard.domain.errors import Invalid
from modelyard.store import accounts, audit
from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.audit import Actor
from modelyard.store.database import Database, lock_key
from modelyard.store.private_files import read_private, write_once

FILE = "owner.token"
USERNAME = "owner"
KEY_NAME = "owner.token"
"""What the key is called among the account's keys."""
_STARTUP = Actor("modelyard")


def owner_key(folder: Path) -> ApiKey:
    """The key of this data folder; made, and put on disk, where there is none yet.

    Raises:
        Invalid: `owner_token_unsafe`, other users can read the file; `owner_token_broken`, it holds no key.
    """
    path = folder / FILE
    if not path.exists():
        write_once(path, new_key().text + "\n")
    key = parse_key(read_private(path, "owner_token_unsafe").strip())
    if key is None:
        raise Invalid("owner_token_broken", f"{path} holds no key.", "Remove the file; the next start writes a new key.")
    return key


def ensure_owner(database: Database, key: ApiKey, now: float) -> None:
    """Make the account of the first administrator where there is none, and the file's key one of its keys.

    A key that was revoked stays revoked, though its file be there; a new key in the file ends the one that was there before, and
    lets its account administer again: whoever writes into the data folder owns the server.
    """
    with database.write() as session:
        lock_key(session, "owner")  # several processes may start at once
        account_id = accounts.ensure(session, USERNAME, now, Role.ADMIN)
        if session.get(ApiKeyRow, key.id) is not None:
            return
        for old in repository.keys_of(session, account_id):
            if old.name == KEY_NAME:
                repository.revoke_key(session, old, now)
                audit.append(session, _STARTUP, "key_revoke", f"key:{old.id}", now)
        _let_administer(session, account_id, now)
        repository.add_key(session, key, account_id, KEY_NAME, ALL_SCOPES, now)
        audit.append(session, _STARTUP, "key_create", f"key:{key.id}", now)


def _let_administer(session: Session, account_id: str, now: float) -> None:
    known = account_rows.by_id(session, account_id)
    if known is not None and not (known.is_active and known.account.role == Role.ADMIN):
        account_rows.change(session, account_id, now, role=Role.ADMIN, state=AccountState.ACTIVE)
        account_rows.end_all(session, account_id, now, "account_changed")
        audit.append(session, _STARTUP, "account_change", f"account:{USERNAME}", now, f"{Role.ADMIN}, {AccountState.ACTIVE}")
