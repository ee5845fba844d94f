"""Composes the upload service: the role that receives, and the role that builds."""

from collections.abc import Callable
from pathlib import Path

from modelyard.domain.ids import Digest
from modelyard.run.service import REST_S, Kernel, Loop, Service
from modelyard.runtime.runtime import Runtime
from modelyard.store import doorbell
from modelyard.web.streams import Seats
from modelyard.weights.folder import WeightsFolder
from upload_service.build_log import BuildLogs
from upload_service.builders import Builder
from upload_service.builds import Builds
from upload_service.claims import Claims
from upload_service.deletion import Deletions
from upload_service.detect import Ceilings
from upload_service.events import EventViews
from upload_service.lookout import Lookout
from upload_service.models import ModelViews
from upload_service.own_models import OwnModels
from upload_service.pages import pages
from upload_service.process_builder import ProcessBuilder
from upload_service.receive import Receive
from upload_service.removal import Removals
from upload_service.routes import Doors, routes
from upload_service.sharing import Sharing
from upload_service.sweeper import Sweeper
from upload_service.waiting import Waiting

LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 60.0


def process_builder(kernel: Kernel, runtime: Runtime, apps: Path, environments: Path, *, shared: bool) -> ProcessBuilder:
    """The builder for the process runtime."""
    cache = kernel.settings.data / "uv-cache"
    return ProcessBuilder(
        runtime,
        kernel.settings.build,
        apps=apps,
        environments=environments,
        cache=cache,
        reserve_bytes=kernel.settings.upload.reserve_bytes,
        shared=shared,
    )


def docker_builder(kernel: Kernel, runtime: Runtime, yard: str) -> Builder:
    """The builder for the runtime of containers.

    Raises:
        Unavailable: `engine_away`.
    """
    from upload_service.docker_builder import DockerBuilder  # noqa: PLC0415 - its library is there only where an engine is
    from upload_service.docker_engine import DockerEngine  # noqa: PLC0415 - as above
    from upload_service.registry import Registry  # noqa: PLC0415 - as above

    settings, engine = kernel.settings, DockerEngine(kernel.settings.docker.url)
    registry = Registry(engine, settings.registry.url) if settings.registry.url else None
    folder, cache = settings.data / "builds", settings.data / "uv-cache"
    return DockerBuilder(engine, runtime, settings.build, yard, folder=folder, cache=cache, registry=registry)


def upload(kernel: Kernel, admit: Callable[[Digest], None]) -> Service:
    """The upload role: receives and checks zips, shows models and builds, takes deletions; it builds and removes nothing."""
    settings, database = kernel.settings, kernel.database
    ceilings = Ceilings(**settings.ceilings.model_dump())
    deletions = Deletions(database, kernel.blobs, kernel.clock)
    logs = BuildLogs(database, kernel.clock)
    lookout = Lookout(database, kernel.bell)
    receive = Receive(
        database, kernel.blobs, ceilings, admit, settings.runtime, settings.quotas, kernel.clock, settings.upload.claim_lease_s
    )
    own_models = OwnModels(receive, kernel.blobs, WeightsFolder(settings.data / "weights"), settings.models.builtin)
    doors = Doors(
        receive,
        kernel.blobs,
        ModelViews(database),
        deletions,
        Sharing(database, kernel.clock),
        EventViews(database, lookout, kernel.stopping),
        Waiting(database, kernel.bell, logs, lookout, kernel.stopping),
        Seats(),
        settings.upload.delete_wait_s,
        settings.upload.stall_s,
    )
    loops = [
        Loop("forget", deletions.step, doorbell.INSTANCES, REST_S, follows_rows=True),
        Loop("lookout", lookout.step, "lookout", REST_S, follows_rows=True),
        Loop("own_models", own_models.step, "own_models", LOOK_EVERY_S),
    ]
    return Service(
        "upload",
        "upload_service",
        routers=[routes(doors), pages(doors)],
        streams=("/upload", "/upload/form"),
        loops=loops,
        ready={"database": database.ready},
    )


def builder_role(kernel: Kernel, builder: Builder, *, alone: bool) -> Service:
    """The builder role: claims builds and runs them, removes what was deleted, sweeps orphans; it answers nobody.

    Args:
        alone: No other builder can be alive, so that the leases of a dead one end at once.
    """
    lease_s = kernel.settings.build.lease_s
    claims = Claims(kernel.database, lease_s, kernel.clock)
    if alone:
        claims.expire_all()
    builds = Builds(
        claims, builder, kernel.blobs, BuildLogs(kernel.database, kernel.clock), kernel.stopping.is_set, min(lease_s / 3, LOOK_EVERY_S)
    )
    removals = Removals(kernel.database, kernel.blobs, builder, kernel.clock)
    sweeper = Sweeper(kernel.database, kernel.blobs, builder, kernel.settings.upload.staging_grace_s)
    loops = [
        Loop("builds", builds.step, doorbell.BUILDS, REST_S, threads=kernel.settings.build.concurrency, follows_rows=True),
        Loop("delete", removals.step, doorbell.INSTANCES, REST_S, follows_rows=True),
        Loop("sweep", sweeper.step, "sweep", SWEEP_EVERY_S),
    ]
    return Service("builder", loops=loops, close=builder.close)
