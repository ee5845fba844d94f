"""Routes: a pure function of a version and of where it runs; and what is said where there is none."""

from inference_service.instances import Running
from modelyard.domain.errors import Conflict, ModelyardError, NotReady
from modelyard.domain.ids import instance_name
from modelyard.domain.states import VersionState
from modelyard.runtime.routes import Route, RouteState
from modelyard.store.catalog import ServingVersion, Unserved

OUR_KEEP_ALIVE_S = 30.0
"""Servers that we start keep idle connections for 75 s."""
FOREIGN_KEEP_ALIVE_S = 1.0
"""Others may close an idle connection at any time; most keep it for some seconds."""
BUILDING_S = 2
"""When a call of a model that is being built may come again: builds take from some seconds to minutes."""
NOWHERE = Running(0, "127.0.0.1", 0)


def route(version: ServingVersion, running: Running, state: RouteState) -> Route:
    """The route of a version that runs there."""
    limits = version.plan.limits
    return Route(
        label=version.label,
        public=version.public,
        shared_with=version.shared_with,
        model_id=version.model_id,
        owner=version.owner,
        name=version.name,
        version_id=version.version_id,
        version=version.number,
        state=state,
        instance=instance_name(version.version_id),
        start=running.start,
        host=running.host,
        port=running.port,
        socket=running.socket,
        timeout_s=limits.timeout_s,
        max_body_bytes=limits.max_body_bytes,
        keep_alive_s=FOREIGN_KEEP_ALIVE_S if version.plan.server == "command" else OUR_KEEP_ALIVE_S,
    )


def cold_route(version: ServingVersion) -> Route:
    """The route of a version that must be started first."""
    return route(version, NOWHERE, RouteState.COLD)


def not_served(owner: str, name: str, version: Unserved) -> ModelyardError:
    """The error of a call of a model that no version serves, for whoever may know its state."""
    state: dict[str, str | int | None] = {"state": version.state, "version": version.number}
    build = f"the build of version {version.number} of {owner}/{name}"
    if version.state in {VersionState.FAILED, VersionState.CANCELLED}:
        ended = "has failed" if version.state is VersionState.FAILED else "was cancelled"
        mend = f"See the build's log: modelyard build-log {owner}/{name}, then upload the model again."
        return Conflict("model_not_built", f"No version serves: {build} {ended}.", mend, extra={**state, "reason": version.reason})
    mend = "Call again after the pause."
    return NotReady("model_building", f"No version serves yet: {build} goes on.", mend, extra=state, retry_after_s=BUILDING_S)
