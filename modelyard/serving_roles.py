"""What each role is composed of, where it has a process of its own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auth_service.service import auth
from gateway.description import Description
from gateway.entering import RemoteEntrance
from gateway.forwarding import Forwarding, Onwards
from gateway.health import gathered
from gateway.service import door
from gateway.services import Services
from gateway.settings import DoorSettings
from inference_service.leadership import Leadership
from inference_service.service import inference, runner_apart
from inference_service.way_in_kind import tell_and_check
from modelyard.composition import admission, knowing, make_builder, make_runtime, relaying
from modelyard.run.service import Kernel, Service
from modelyard.runtime.runtime import Role as RuntimeRole
from modelyard.web import entering
from modelyard.web.access import Action, Asgi, Guarded, Principal
from modelyard.web.app import Health, create_app
from modelyard.web.apps_gate import AppsGate, console_name
from modelyard.web.credentials import Credentials
from modelyard.web.entering import Entering
from modelyard.web.introspection import PRINCIPAL, TRUST, DoorRules, Introspection
from modelyard.web.limits import Limits
from upload_service.service import builder_role, upload

if TYPE_CHECKING:
    from modelyard.bus.kafka import KafkaBus

GATEWAY = "gateway"

Apply = Callable[[Sequence[Service]], Asgi]


@dataclass(slots=True)
class Parts:
    """What a process has before it knows what it is.

    Args:
        folder: Where the processes of this data folder meet.
        health: Its own.
        stand_by: Called where another process does the role's work, and this one waits to take it over.
        stop: Ends the process.
    """

    kernel: Kernel
    bus: "KafkaBus"
    folder: Path
    health: Health
    stand_by: Callable[[], None]
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Composed:
    """A role put together.

    Args:
        app: The application over these services and those that every process has.
    """

    services: Sequence[Service]
    app: Apply


@dataclass(frozen=True, slots=True)
class Role:
    """What a process may be.

    Args:
        told_as: Its name in `/health`.
        compose: Puts it together; None where the process is told to end before.
        port: Where it usually listens; None: inside the data folder alone.
    """

    told_as: str
    compose: Callable[[Parts], Composed | None]
    port: int | None = None


def _auth(parts: Parts) -> Composed:
    made, credentials = auth(parts.kernel), _credentials(parts)
    told = Guarded(Introspection(credentials, DoorRules.of(parts.kernel.settings)), Action.PUBLIC)
    mounts = {entering.PATH: Guarded(Entering(made.opening.enter), Action.PUBLIC), TRUST: told, PRINCIPAL: told}
    return _called(parts, made.service, Service("inside", mounts=mounts), credentials=credentials)


def _upload(parts: Parts) -> Composed:
    kernel = parts.kernel
    return _called(parts, upload(kernel, admission(kernel.settings)), relaying(kernel, parts.bus))


def _builder(parts: Parts) -> Composed:
    kernel = parts.kernel
    with ExitStack() as undone:
        runtime, report = make_runtime(kernel.settings, kernel.bell, [RuntimeRole.VERIFY])
        undone.callback(runtime.close)
        made = builder_role(kernel, make_builder(kernel, runtime, report), alone=False)
        undone.pop_all()
    return _silent(parts, made, relaying(kernel, parts.bus), Service("runtime", close=runtime.close))


def _inference(parts: Parts) -> Composed:
    return _called(parts, inference(parts.kernel, parts.bus), relaying(parts.kernel, parts.bus))


def _runner(parts: Parts) -> Composed | None:
    kernel = parts.kernel
    leadership = Leadership(parts.folder, kernel.database)
    parts.stand_by()
    if not leadership.wait(kernel.stopping):
        leadership.close()
        return None
    with ExitStack() as undone:
        undone.callback(leadership.close)
        tell_and_check(parts.folder, kernel.settings.runtime)
        runtime, _ = make_runtime(kernel.settings, kernel.bell, [RuntimeRole.APP])
        undone.callback(runtime.close)
        made = runner_apart(kernel, runtime, parts.folder, leadership, parts.stop)
        undone.pop_all()
    return _silent(parts, made, relaying(kernel, parts.bus))


def _gateway(parts: Parts) -> Composed:
    settings = parts.kernel.settings
    told = DoorSettings()
    made, services = door(parts.folder, settings.run.hold_s, told, settings.models.builtin), Services(parts.folder)
    credentials = _credentials(parts)
    forwarding = Forwarding(services, told)
    console = console_name(settings.apps_domain, settings.hosts)
    apps = AppsGate(made.app, credentials, RemoteEntrance(services).enter, console)
    service = Service(
        "gateway",
        mounts={"/m/": Guarded(made.app, Action.PREDICT)},
        loops=[knowing(credentials)],
        begin_drain=forwarding.end_streams,
        hang_up=made.front.close,
        close=made.listening.close,
    )

    async def health() -> tuple[int, Mapping[str, Any]]:
        status, own = await parts.health()
        return status, await gathered(services, [role for role in ROLES if role != GATEWAY], own)

    def app(every: Sequence[Service]) -> Asgi:
        return create_app(
            every,
            credentials,
            _hosts(parts),
            apps,
            settings.apps_domain,
            Limits(settings.limits),
            health=health,
            onward=Onwards(Description(services), forwarding),
        )

    made.listening.start()
    return Composed([service], app)


ROLES: Mapping[str, Role] = {
    "auth": Role("auth_service", _auth, 8000),
    "upload": Role("upload_service", _upload, 8001),
    "builder": Role("builder", _builder),
    "inference": Role("inference_service", _inference),
    "runner": Role("runner", _runner),
    GATEWAY: Role("gateway", _gateway, 8080),
}


def _called(parts: Parts, *services: Service, credentials: Credentials | None = None) -> Composed:
    """A role that looks at callers' credentials itself."""
    credentials = credentials or _credentials(parts)
    limits = Limits(parts.kernel.settings.limits)

    def app(every: Sequence[Service]) -> Asgi:
        return create_app(every, credentials, _hosts(parts), limits=limits, health=parts.health)

    return Composed([*services, Service("credentials", loops=[knowing(credentials)])], app)


def _silent(parts: Parts, *services: Service) -> Composed:
    """A role that answers nobody but health checks."""
    return Composed(services, lambda every: create_app(every, _Nobody(), _hosts(parts), health=parts.health))


def _credentials(parts: Parts) -> Credentials:
    credentials = Credentials(parts.kernel.database, parts.kernel.clock)
    credentials.refresh()
    return credentials


def _hosts(parts: Parts) -> tuple[str, ...]:
    return (*parts.kernel.settings.hosts, parts.kernel.settings.host)


class _Nobody:
    """The authenticator of a role that nobody calls."""

    async def by_token(self, token: str) -> Principal | None:
        """See `Authenticator`."""
        del token
        return None

    async def by_cookie(self, value: str) -> Principal | None:
        """See `Authenticator`."""
        del value
        return None
