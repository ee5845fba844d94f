"""Composes the auth service: accounts, what they are given, and browser sessions."""

from dataclasses import dataclass

from auth_service.owner import ensure_owner, owner_key
from auth_service.routes import routes
from auth_service.sessions import Sessions
from modelyard.domain.api_keys import ApiKey
from modelyard.run.service import Kernel, Service


@dataclass(frozen=True, slots=True)
class Auth:
    """The auth role, and what the process around it needs of it.

    Args:
        key: The owner's.
    """

    service: Service
    sessions: Sessions
    key: ApiKey


def auth(kernel: Kernel) -> Auth:
    """The auth role: accounts, log-in, keys, tokens; makes the first administrator at the first start."""
    key = owner_key(kernel.settings.data)
    ensure_owner(kernel.database, key, kernel.clock())
    sessions = Sessions(kernel.database, kernel.settings.auth.session_s, kernel.clock)
    return Auth(Service("auth", "auth_service", routers=[routes(sessions)]), sessions, key)
