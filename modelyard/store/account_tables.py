"""The rows that the auth service writes; an account alone is also made by an upload for a name that nobody has."""

from sqlalchemy import JSON, Boolean, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.domain.accounts import AccountState, Role, SessionKind, TicketPurpose
from modelyard.store.row import ID, NAME, STATE, Json, Row


class AccountRow(Row):
    """One user. The row stays for ever: a name is never given out twice."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    username: Mapped[str] = mapped_column(NAME, unique=True)
    skeleton: Mapped[str] = mapped_column(String(80), unique=True)
    """The name as an eye that skims reads it: two accounts never share it."""
    role: Mapped[Role] = mapped_column(STATE)
    state: Mapped[AccountState] = mapped_column(STATE)
    since: Mapped[float] = mapped_column(Float)
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    """Grows whenever all that was given out to the account ends: its role, its password or its state changed."""
    created_at: Mapped[float] = mapped_column(Float)


class PasswordRow(Row):
    """An account's password; an account without one cannot log in."""

    __tablename__ = "passwords"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hash: Mapped[str] = mapped_column(Text)
    """Argon2id in its PHC string format."""
    since: Mapped[float] = mapped_column(Float)


class SessionRow(Row):
    """A log-in: of a browser, whose cookie holds the secret, or a family of refresh tokens."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    kind: Mapped[SessionKind] = mapped_column(STATE)
    secret_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of a browser's cookie; a refresh token is derived and never kept."""
    generation: Mapped[int] = mapped_column(Integer, default=0)
    """Of the family's newest refresh token."""
    rotated_at: Mapped[float] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float] = mapped_column(Float)
    revoked_at: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str | None] = mapped_column(String(40))
    agent: Mapped[str] = mapped_column(String(200), default="")
    """What the client called itself."""
    by_link: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether a one-time link opened it: who came by one need not know the old password to set a new one."""


class ApiKeyRow(Row):
    """An API key; its secret was shown once."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float | None] = mapped_column(Float)
    last_used_at: Mapped[float | None] = mapped_column(Float)
    revoked_at: Mapped[float | None] = mapped_column(Float)


class TicketRow(Row):
    """A one-time link; deleted as it is taken."""

    __tablename__ = "tickets"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[TicketPurpose] = mapped_column(STATE)
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    subject: Mapped[str] = mapped_column(String(200), default="")
    """What it opens beside the account: a model's id, a session's id, an invited role."""
    expires_at: Mapped[float] = mapped_column(Float, index=True)


class RevocationRow(Row):
    """What every process must refuse at once, although it may still have it in its cache."""

    __tablename__ = "revocations"

    subject: Mapped[str] = mapped_column(String(80), primary_key=True)
    """`account:ID`, `session:ID` or `key:ID`."""
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    """Of an account: what carries a smaller epoch is refused. Of others: 0, all is refused."""
    until: Mapped[float] = mapped_column(Float, index=True)
    """When nothing that it refuses can be alive any more."""


class SigningKeyRow(Row):
    """The public half of a key that signs access tokens, as a JWK; the private half is a file of the auth service."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(40), primary_key=True)
    jwk: Mapped[Json] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    signs_from: Mapped[float] = mapped_column(Float)
    ends_at: Mapped[float | None] = mapped_column(Float)
    """When the last token that it signed is dead; null while it may sign."""
