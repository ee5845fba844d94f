"""OAuth 2.0 grants: what a program sends for its tokens (RFC 6749, 4.3 and 6), and the keys that they are verified with."""

from collections.abc import Callable

from auth_service.access_tokens import Tokens
from auth_service.log_in import LogIn
from auth_service.refresh import RefreshTokens
from modelyard.domain.errors import Malformed, Unauthenticated
from modelyard.store import accounts
from modelyard.store.audit import Actor
from modelyard.store.database import Database
from modelyard.store.row import Json


class Grants:
    """Gives tokens for what the form of a request holds.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, log_in: LogIn, refresh: RefreshTokens, clock: Callable[[], float]) -> None:
        self._database = database
        self._log_in = log_in
        self._refresh = refresh
        self._clock = clock

    def give(self, field: Callable[[str], str], agent: str, actor: Actor) -> Tokens:
        """The tokens.

        A refusal has the word of RFC 6749, 5.2, in the member `error`, for clients that look for it.

        Args:
            field: The form's field of this name; empty where it was not sent.

        Raises:
            Malformed: `grant_unknown` or `grant_incomplete`.
            Unauthenticated: The password or the refresh token is not good.
            Limited: `too_many_attempts` or `busy`.
        """
        try:
            return self._give(field, agent, actor)
        except Unauthenticated as error:
            error.extra["error"] = "invalid_grant"
            raise

    def _give(self, field: Callable[[str], str], agent: str, actor: Actor) -> Tokens:
        match field("grant_type"):
            case "password":
                _check_sent(field, "username", "password")
                return self._log_in.for_program(field("username"), field("password"), actor.address, "", agent, actor)
            case "refresh_token":
                _check_sent(field, "refresh_token")
                return self._refresh.rotate(field("refresh_token"), actor)
            case _:
                mend = "Send grant_type=password or grant_type=refresh_token."
                raise Malformed("grant_unknown", "There is no such grant_type.", mend, extra={"error": "unsupported_grant_type"})

    def public_keys(self) -> list[Json]:
        """The JWK of every key whose tokens may be alive."""
        with self._database.read() as session:
            return list(accounts.public_keys(session, self._clock()).values())


def _check_sent(field: Callable[[str], str], *names: str) -> None:
    missing = [name for name in names if not field(name)]
    if missing:
        why = f"The form lacks {' and '.join(missing)}."
        raise Malformed("grant_incomplete", why, f"Add it: curl -d {missing[0]}=...", extra={"error": "invalid_request"})
