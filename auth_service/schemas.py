"""The bodies that the auth service takes and answers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from modelyard.domain.accounts import KEY_SCOPES, AccountState, Role, SessionKind

Username = Annotated[str, Field(max_length=100)]
NewPassword = Annotated[SecretStr, Field(max_length=2000)]
MOST_KEY_S = 10 * 365 * 86400.0


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class FirstLink(BaseModel):
    """A link that signs one browser in, once."""

    url: Annotated[str, Field(repr=False)]


class Invitation(BaseModel):
    """A link with which one person chooses a password, once."""

    url: Annotated[str, Field(repr=False)]
    expires_at: AwareDatetime


class Token(BaseModel):
    """What a program signs in with (RFC 6749, 5.1); `expires_in` are seconds."""

    model_config = ConfigDict(hide_input_in_errors=True)

    access_token: Annotated[str, Field(repr=False)]
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a type
    expires_in: int
    refresh_token: Annotated[str, Field(repr=False)]


class SignUpAsked(_Asked):
    """Who wants an account; `invite` is what an invitation's link ends with."""

    username: Username
    password: NewPassword
    invite: Annotated[str, Field(max_length=100)] = ""


class Account(BaseModel):
    """An account; one without a password cannot log in."""

    username: str
    role: Role
    state: AccountState
    has_password: bool
    created_at: AwareDatetime


class AccountAsked(_Asked):
    """An account that an administrator makes; without a password it waits for an invitation."""

    username: Username
    role: Role = Role.MEMBER
    password: NewPassword | None = None


class AccountChange(_Asked):
    """What of an account is to be another; what is left out stays."""

    role: Role | None = None
    state: AccountState | None = None


class InvitationAsked(_Asked):
    """The role of whoever takes the invitation; an account that is there keeps its own."""

    role: Role = Role.MEMBER


class PasswordAsked(_Asked):
    """A new password."""

    password: NewPassword


class OwnPasswordAsked(PasswordAsked):
    """A new password of one's own; the old one is needed, unless a one-time link opened the session."""

    old_password: NewPassword = SecretStr("")


class Me(BaseModel):
    """Who calls, and what the credential is good for."""

    username: str
    role: Role
    scopes: list[str]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return text


class KeyAsked(_Asked):
    """A key that is to be made; one without `expires_in_s` is good until it is revoked."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
    scopes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=50)] = sorted(KEY_SCOPES)
    expires_in_s: Annotated[float, Field(gt=0, le=MOST_KEY_S)] | None = None


class Key(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None


class NewKey(Key):
    """A key in full, which is shown this once."""

    model_config = ConfigDict(hide_input_in_errors=True)

    key: Annotated[str, Field(repr=False)]


class OpenSession(BaseModel):
    """A log-in that has not ended; `current`: it is the caller's own."""

    id: str
    kind: SessionKind
    agent: str
    current: bool
    created_at: AwareDatetime
    expires_at: AwareDatetime


class KeySet(BaseModel):
    """The public keys that access tokens are verified with (RFC 7517, 5)."""

    keys: list[dict[str, object]]
