"""Composes the inference service: the role that hears events, and the role that runs instances."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from inference_service import remote_routes, ways_in
from inference_service.access import Access
from inference_service.activation import Starter
from inference_service.consumers import SUBSCRIPTION, ModelConsumer
from inference_service.idling import IDLE, Idling
from inference_service.instances import Instances
from inference_service.leadership import Leadership
from inference_service.lifecycle import Lifecycle
from inference_service.model_output import ModelOutput
from inference_service.reconciler import LOOKS_AFTER_S, Reconciler
from inference_service.remote_routes import RemoteRoutes
from inference_service.routes import asked_by_the_door, routes
from inference_service.ways_in import WaysIn
from inference_service.workers import Workers
from modelyard.bus.bus import Bus
from modelyard.run.service import REST_S, Kernel, Loop, Service
from modelyard.run.unix_server import UnixServer
from modelyard.runtime.routes import Routes
from modelyard.runtime.runtime import Runtime
from modelyard.store import doorbell

SOCKET = "runner.sock"
LOOKS_FOR_DOOR_S = 0.2
LOOKS_WHO_LEADS_S = 1.0


@dataclass(frozen=True, slots=True)
class Runner:
    """The runner role, and what the front door asks of it."""

    service: Service
    activation: Starter


def inference(kernel: Kernel, bus: Bus) -> Service:
    """The inference role: turns model events into desired state, and shows what instances printed."""
    consumer = ModelConsumer(kernel.database, kernel.clock)
    loop = Loop("consume", lambda: bus.deliver(SUBSCRIPTION, consumer.take), doorbell.BUS, REST_S, follows_rows=True)
    output = ModelOutput(kernel.database, kernel.settings.data / "output")
    return Service("inference", "inference_service", routers=[routes(output)], loops=[loop], ready={"database": kernel.database.ready})


def runner(kernel: Kernel, runtime: Runtime, table: Routes) -> Runner:
    """The runner role: reconciles, starts, freezes and stops; takes model ids and nothing else."""
    settings, database = kernel.settings.run, kernel.database
    instances = Instances(database, kernel.clock, runtime.inlet)
    lifecycle = Lifecycle(database, runtime, table, instances, settings.grace_s, kernel.stopping.is_set)
    starter = Starter(database, runtime, lifecycle, instances, settings.hold_s, settings.starts_at_once)
    workers = Workers()
    reconciler = Reconciler(database, runtime, table, instances, lifecycle, workers, settings.look_every_s)
    idling = Idling(database, table, lifecycle, workers, settings.look_every_s)
    loops = [
        Loop("reconcile", reconciler.step, doorbell.INSTANCES, LOOKS_AFTER_S, follows_rows=True),
        Loop("access", Access(database, lifecycle, kernel.clock).step, doorbell.ACCESS, REST_S, follows_rows=True),
        Loop("idle", idling.step, IDLE, REST_S, follows_rows=True),
    ]

    def close() -> None:
        starter.close()
        workers.close()
        runtime.close()

    return Runner(Service("runner", loops=loops, close=close), starter)


def runner_apart(kernel: Kernel, runtime: Runtime, folder: Path, leadership: Leadership, lost: Callable[[], object]) -> Service:
    """The runner role for a door in another process, which it answers from now on.

    Args:
        folder: Where the processes of this data folder meet, see `run_folder`.
        leadership: Held by this process: `Leadership.wait` has returned True. It is given back at the end.
        lost: Called once another runner leads; it must end this process, and return at once.

    Raises:
        Invalid: `data_folder_too_deep`.
    """
    table = RemoteRoutes(folder / remote_routes.SOCKET, leadership.term)
    run = runner(kernel, runtime, table)
    asked = UnixServer(asked_by_the_door(run.activation), folder / SOCKET)
    ways = WaysIn(runtime.dial, folder / ways_in.SOCKET)
    loops = [
        *run.service.loops,
        Loop("door", table.look, "door", LOOKS_FOR_DOOR_S),
        Loop("leadership", leadership.watch(lost), "leadership", LOOKS_WHO_LEADS_S),
    ]

    def close() -> None:
        asked.close()
        ways.close()
        run.service.close()
        table.close()
        leadership.close()

    # First of all a door that outlived the last runner forgets that one's instances: their names and numbers come again.
    table.look()
    ways.start()
    asked.start()
    return replace(run.service, loops=loops, close=close)
