"""Composes the auth service: the owner's key, and browser sessions."""

from dataclasses import dataclass

from auth_service.keys import ApiKey, parse_key
from auth_service.owner import USERNAME, owner_key
from auth_service.routes import routes
from auth_service.sessions import Sessions
from modelyard.run.service import Kernel, Service
from modelyard.web.access import Principal, Role


@dataclass(frozen=True, slots=True)
class OwnerAuthenticator:
    """Knows one account: the owner of the data folder, who may do everything."""

    key: ApiKey
    sessions: Sessions

    def by_token(self, token: str) -> Principal | None:
        """The owner, where the key is theirs."""
        key = parse_key(token)
        return Principal(USERNAME, Role.ADMIN) if key is not None and key.same(self.key) else None

    def by_cookie(self, value: str) -> Principal | None:
        """The owner, where the session is good."""
        return Principal(USERNAME, Role.ADMIN, by_cookie=True) if self.sessions.is_good(value) else None


def authenticator(kernel: Kernel) -> OwnerAuthenticator:
    """The one that the gate asks; writes the owner's key at the first start."""
    key = owner_key(kernel.settings.data)
    return OwnerAuthenticator(key, Sessions(key.secret.encode(), kernel.clock))


def auth(sessions: Sessions) -> Service:
    """The auth role: opens browser sessions."""
    return Service("auth", "auth_service", routers=[routes(sessions)])
