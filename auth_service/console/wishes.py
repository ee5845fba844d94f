"""The key that a form asks for."""

import re
from collections.abc import Sequence

from auth_service.keys import KeyWish
from modelyard.domain.accounts import ONE_MODEL, Role, Scope
from modelyard.domain.errors import Invalid
from modelyard.web.forms import Form

DAY_S = 86_400.0
LIVES = (("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "never"))
"""Days, and how they are told."""
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_OFFERED = (Scope.PREDICT, Scope.READ, Scope.WRITE)


def offered(role: Role) -> Sequence[Scope]:
    """The scopes that the form offers: a key for programs manages no account."""
    return [scope for scope in _OFFERED if scope is not Scope.WRITE or role is not Role.VIEWER]


def key_wish(form: Form) -> KeyWish:
    """The wish as it was typed; its scopes are checked by whoever makes the key.

    Raises:
        Invalid: `key_name_invalid`, `key_life_invalid`, `scope_wider` or `scope_missing`.
    """
    name, model, days = form.one("name").strip(), form.one("model").strip(), form.one("days")
    if not _NAME.fullmatch(name):
        raise _refused("key_name_invalid", "name", "A key has a name of 1 to 100 characters.", "Say what the key is for.")
    if days not in dict(LIVES):
        raise _refused("key_life_invalid", "days", "A key ends after one of the times in the list, or never.", "Choose one of them.")
    scopes = [*form.all("scopes"), *([ONE_MODEL + model] if model else [])]
    if model and Scope.PREDICT in scopes:
        what = "With the box for calling models ticked, the key is good for more than this one model."
        raise _refused("scope_wider", "scopes", what, f"Untick it for a key to {model} alone, or leave the one model empty.")
    if not scopes:
        raise _refused("scope_missing", "scopes", "The key is good for nothing yet.", "Choose what it is good for, or name one model.")
    return KeyWish(name, scopes, float(days) * DAY_S if days else None)


def _refused(code: str, field: str, message: str, mend: str) -> Invalid:
    return Invalid(code, message, mend, errors=[{"field": field, "message": message}])
