"""Composes the gateway: the front door over a runner in another process, and the socket on which that runner tells it the routes."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gateway.control import Control, Listening, OnceTold
from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.remote_activation import RemoteActivation
from gateway.settings import DoorSettings
from modelyard.web.access import Asgi, Principal
from modelyard.web.awaited import admitting


@dataclass(frozen=True, slots=True)
class Door:
    """The front door of a process of its own.

    Args:
        app: What callers of models meet, below `/m/` and on models' own hosts.
        front: The door behind it; `front.close` hangs up, on the event loop.
        listening: The control socket: started before callers are answered, closed after the last of them.
    """

    app: Asgi
    front: FrontDoor[Principal]
    listening: Listening


def door(folder: Path, hold_s: float, settings: DoorSettings, builtins: Collection[str]) -> Door:
    """The door role.

    Args:
        folder: Where the processes of this data folder meet, see `run_folder`.
        hold_s: Seconds that a call waits for a start.
        builtins: The platform's own models that are served here.
    """
    routes = FrontDoorRoutes(absent_s=settings.absent_s)
    control = Control(routes)
    front: FrontDoor[Principal] = FrontDoor(routes, RemoteActivation(folder, hold_s), admitting(builtins), settings)
    return Door(OnceTold(front, control), front, Listening(control, folder))
