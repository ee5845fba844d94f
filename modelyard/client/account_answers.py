"""What the server answers about accounts, as typed values; times are RFC 3339 UTC."""

from pydantic import Field

from modelyard.client.answers import Answer


class Tokens(Answer):
    """What a log-in gives: an access token that is good for `expires_in` seconds, and a refresh token that is traded for the next pair, once."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    token_type: str = "Bearer"  # noqa: S105 - a scheme's name (RFC 6749, section 7.1)
    expires_in: float


class User(Answer):
    """An account; `role` is admin, member or viewer, `state` active or disabled. Without a password nobody can log in."""

    username: str
    role: str
    state: str = "active"
    has_password: bool = False
    created_at: str | None = None


class Me(Answer):
    """Whoever the token speaks for, and what it is good for."""

    username: str
    role: str
    scopes: tuple[str, ...] = ()


class Key(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...] = ()
    created_at: str | None = None
    expires_at: str | None = None
    last_used_at: str | None = None


class NewKey(Key):
    """An API key as it is shown once; `key` is its whole text."""

    key: str = Field(repr=False)


class Invitation(Answer):
    """A link with which somebody chooses a password for an account, once."""

    url: str = Field(repr=False)
    expires_at: str | None = None
