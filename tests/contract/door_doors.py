"""The doors that every case is shown to: one suite for both."""

import pytest
from door_nginx import NginxStage
from door_stage import Stage

from gateway.settings import DoorSettings

DOORS = ["asgi", pytest.param("nginx", marks=pytest.mark.nginx)]


def make_stage(kind: str, settings: DoorSettings) -> Stage:
    """A stage with the door of this kind, which is set up with these settings alone."""
    # As far as the cases go the two are one; what holds for one alone asks for its kind.
    return NginxStage(settings) if kind == "nginx" else Stage()  # type: ignore[return-value]
