"""Composes the inference service: the role that hears events, and the role that runs instances."""

from dataclasses import dataclass

from inference_service.activation import Starter
from inference_service.consumers import SUBSCRIPTION, ModelConsumer
from inference_service.idling import Idling
from inference_service.instances import Instances
from inference_service.lifecycle import Lifecycle
from inference_service.model_output import ModelOutput
from inference_service.reconciler import Reconciler
from inference_service.routes import routes
from inference_service.workers import Workers
from modelyard.bus.bus import Bus
from modelyard.run.service import Kernel, Loop, Service
from modelyard.runtime.routes import Routes
from modelyard.runtime.runtime import Runtime
from modelyard.store import doorbell


@dataclass(frozen=True, slots=True)
class Runner:
    """The runner role, and what the front door asks of it."""

    service: Service
    activation: Starter


def inference(kernel: Kernel, bus: Bus) -> Service:
    """The inference role: turns model events into desired state, and shows what instances printed."""
    consumer = ModelConsumer(kernel.database, kernel.clock)
    loop = Loop("consume", lambda: bus.deliver(SUBSCRIPTION, consumer.take), doorbell.BUS, kernel.settings.run.look_every_s)
    output = ModelOutput(kernel.database, kernel.settings.data / "output")
    return Service("inference", "inference_service", routers=[routes(output)], loops=[loop], ready={"database": kernel.database.ready})


def runner(kernel: Kernel, runtime: Runtime, table: Routes) -> Runner:
    """The runner role: reconciles, starts, freezes and stops; takes model ids and nothing else."""
    settings, database = kernel.settings.run, kernel.database
    instances = Instances(database, kernel.clock)
    lifecycle = Lifecycle(database, runtime, table, instances, settings.grace_s, kernel.stopping.is_set)
    starter = Starter(database, runtime, lifecycle, instances, settings.hold_s, settings.starts_at_once)
    workers = Workers()
    reconciler = Reconciler(database, runtime, table, instances, lifecycle, workers, kernel.clock)
    idling = Idling(database, table, lifecycle, workers)
    loops = [
        Loop("reconcile", reconciler.step, doorbell.INSTANCES, settings.look_every_s),
        Loop("idle", idling.step, "idle", settings.look_every_s),
    ]

    def close() -> None:
        starter.close()
        workers.close()
        runtime.close()

    return Runner(Service("runner", loops=loops, close=close), starter)
