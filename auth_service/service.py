"""Composes the auth service: accounts, what they are given, and browser sessions."""

from collections.abc import Callable
from dataclasses import dataclass

from auth_service import repository
from auth_service.access_tokens import AccessTokens
from auth_service.accounts import Accounts
from auth_service.audit_head import AuditHead
from auth_service.grants import Grants
from auth_service.guessing import Devices, Guessing
from auth_service.keys import Keys
from auth_service.log_in import LogIn
from auth_service.once import Once
from auth_service.opening.routes import routes as opening_routes
from auth_service.opening.visits import Opening
from auth_service.owner import ensure_owner, owner_key
from auth_service.pages import pages
from auth_service.passwords import Passwords
from auth_service.refresh import RefreshTokens
from auth_service.routes import Doors, routes
from auth_service.server_secret import ServerSecret, server_secret
from auth_service.sessions import Sessions
from auth_service.sign_up import SignUp
from auth_service.signing import Signer
from modelyard.domain.api_keys import ApiKey
from modelyard.run.service import Kernel, Loop, Service
from modelyard.store.database import Database

PRUNE_EVERY_S = 3600.0
SIGNING_EVERY_S = 60.0
AUDIT_HEAD_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Auth:
    """The auth role, and what the process around it needs of it.

    Args:
        key: The owner's.
    """

    service: Service
    sessions: Sessions
    key: ApiKey
    doors: Doors
    opening: Opening


def auth(kernel: Kernel, passwords: Passwords | None = None) -> Auth:
    """The auth role: accounts, log-in, keys, tokens; makes the first administrator at the first start.

    Args:
        passwords: What checks passwords, where it is not what the settings say.

    Raises:
        Invalid: A secret is weak, or a file that holds one can be read by others: the service must not start.
    """
    settings, database, clock = kernel.settings, kernel.database, kernel.clock
    key, secret = owner_key(settings.data), server_secret(settings)
    ensure_owner(database, key, clock())
    signer = Signer(database, settings.data, clock, settings.auth.access_s)
    doors = _doors(kernel, secret, signer, passwords or Passwords(settings.auth.hashes_at_once))
    loops = [
        Loop("signing", signer.step, "signing", SIGNING_EVERY_S),
        Loop("audit_head", AuditHead(database).step, "audit_head", AUDIT_HEAD_EVERY_S),
        Loop("prune_credentials", lambda: _prune(database, clock), "prune_credentials", PRUNE_EVERY_S),
    ]
    opening = Opening(database, signer.sign, clock)
    routers = [routes(doors), pages(doors), opening_routes(opening, settings.apps_domain)]
    return Auth(Service("auth", "auth_service", routers=routers, loops=loops), doors.sessions, key, doors, opening)


def _doors(kernel: Kernel, secret: ServerSecret, signer: Signer, passwords: Passwords) -> Doors:
    told, database, clock = kernel.settings.auth, kernel.database, kernel.clock
    guessing, once = Guessing(), Once(database, secret)
    refresh = RefreshTokens(database, secret, AccessTokens(signer, told.access_s, clock), told.refresh_s, clock)
    log_in = LogIn(database, passwords, guessing, Devices(secret, clock), refresh, told.session_s, clock)
    return Doors(
        log_in,
        SignUp(database, passwords, told.signup, clock),
        Accounts(database, passwords, guessing, once, clock, invite_s=told.invite_s, takes_new=told.signup != "closed"),
        Keys(database, once, clock),
        Sessions(database, told.session_s, clock),
        Grants(database, log_in, refresh, clock),
    )


def _prune(database: Database, clock: Callable[[], float]) -> bool:
    with database.write() as session:
        repository.prune(session, clock())
    return False
