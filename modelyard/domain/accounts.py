"""Accounts as values: roles, scopes, and what makes two usernames look alike."""

from collections.abc import Iterable
from enum import StrEnum

from modelyard.domain.errors import Invalid
from modelyard.domain.ids import is_name


class Role(StrEnum):
    """What an account may do beside calling what it was given: a viewer reads and calls, a member also uploads, an administrator acts for anyone."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class AccountState(StrEnum):
    """Whether the account may be used."""

    ACTIVE = "active"
    DISABLED = "disabled"


class SessionKind(StrEnum):
    """What a log-in gave out."""

    BROWSER = "browser"
    REFRESH = "refresh"


class TicketPurpose(StrEnum):
    """What a one-time link does: signs in, lets somebody sign up, opens a model's own pages."""

    FIRST = "first"
    INVITE = "invite"
    OPEN = "open"


class Scope(StrEnum):
    """What a credential is good for; `predict:OWNER/NAME` is the part of `PREDICT` that one model is."""

    READ = "models:read"
    WRITE = "models:write"
    PREDICT = "predict"
    ACCOUNT = "account"
    ADMIN = "admin"


ALL_SCOPES: frozenset[str] = frozenset(Scope)
KEY_SCOPES: frozenset[str] = frozenset({Scope.READ, Scope.WRITE, Scope.PREDICT})
"""What an API key gets where nothing else was asked for: it makes no further keys."""
ONE_MODEL = f"{Scope.PREDICT}:"


def parse_scopes(asked: Iterable[str]) -> frozenset[str]:
    """The scopes as a set.

    Raises:
        Invalid: `scope_unknown`, it names the first that is none.
    """
    scopes = frozenset(asked)
    for scope in sorted(scopes):
        if scope not in ALL_SCOPES and not _names_a_model(scope):
            raise Invalid(
                "scope_unknown",
                f"There is no scope {scope[:100]!r}.",
                f"Choose among {', '.join(sorted(ALL_SCOPES))} and {ONE_MODEL}OWNER/NAME.",
                errors=[{"field": "scopes", "message": "unknown scope"}],
            )
    if not scopes:
        raise Invalid("scope_missing", "A key without a scope is good for nothing.", f"Name one, for example {Scope.PREDICT}.")
    return scopes


def may_predict(scopes: frozenset[str], owner: str, name: str) -> bool:
    """Whether the scopes reach the calls of this model."""
    return Scope.PREDICT in scopes or f"{ONE_MODEL}{owner}/{name}" in scopes


def skeleton(username: str) -> str:
    """The name as an eye that skims reads it, after the idea of Unicode UTS 39: names with one skeleton are taken for each other.

    Usernames hold a-z, 0-9 and hyphens alone, so the table of confusables is short.
    """
    plain = username.replace("-", "").replace("rn", "m").replace("vv", "w")
    return plain.translate(str.maketrans("01i", "oll"))


def _names_a_model(scope: str) -> bool:
    owner, mark, name = scope.removeprefix(ONE_MODEL).partition("/")
    return scope.startswith(ONE_MODEL) and bool(mark) and is_name(owner) and is_name(name)
