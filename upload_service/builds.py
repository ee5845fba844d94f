"""The build loop: claims a build, runs its steps, and keeps its log and its state true."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from modelyard.domain.errors import ModelyardError, Unavailable
from modelyard.domain.ids import Digest
from modelyard.run import metrics
from modelyard.run.tracing import Kind, caused
from modelyard.runtime.engine import EngineAway
from modelyard.store.blobs import Blobs
from upload_service.build_log import BuildLogs
from upload_service.builders import BuildCancelledError, Builder, BuildError, Source, disk_full
from upload_service.claims import ClaimedBuild, Claims

log = structlog.get_logger(__name__)

STEPS = ("unpack", "lock", "install", "package", "verify")


class Builds:
    """Runs builds, each step by step: unpack, lock, install, package, verify.

    Args:
        stopping: True once the process drains; a build that runs is then given back.
        renew_every_s: Seconds between two renewals of a lease.
    """

    def __init__(
        self, claims: Claims, builder: Builder, blobs: Blobs, logs: BuildLogs, stopping: Callable[[], bool], renew_every_s: float
    ) -> None:
        self._claims = claims
        self._builder = builder
        self._blobs = blobs
        self._logs = logs
        self._stopping = stopping
        self._renew_every_s = renew_every_s

    def step(self) -> bool:
        """Run one build; False where none waits.

        Raises:
            EngineAway: The build was given back; the next try may wait.
        """
        build = self._claims.claim()
        if build is None:
            return False
        began = time.monotonic()
        with caused(build.cause, "build", Kind.CONSUMER, {"modelyard.build.id": build.id}) as span, self._held(build) as lost:
            outcome = self._run(build, _Run(self._logs, build, lambda: lost.is_set() or self._stopping()))
            span.tell({"modelyard.build.outcome": outcome})
        metrics.build_ended(outcome, time.monotonic() - began)
        return True

    def _run(self, build: ClaimedBuild, run: "_Run") -> str:
        """Run the steps, end the build, and return how, as it is counted."""
        try:
            self._steps(build, run)
        except BuildError as error:
            run(f"failed: {error} {error.mend}")
            self._claims.fail(build, error, run.seconds)
        except (BuildCancelledError, Unavailable) as error:
            # The database was away, or the engine: that is no fault of the app, and the build is tried again.
            log.info("build given back", build=build.id)
            self._claims.give_back(build)
            if isinstance(error, EngineAway):
                raise
            return "given_back"
        except ModelyardError as error:
            run(f"failed: {error.message} {error.mend}")
            self._claims.fail(build, BuildError(error.code, error.message, error.mend), run.seconds)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                self._claims.fail(build, disk_full(), run.seconds)
                return "failed"
            # Nobody may wait for a build that nobody runs: a fault of ours ends it as well, and is told as ours.
            log.exception("build broke", build=build.id)
            fault = BuildError("internal", "The builder broke.", "Upload again; if it happens again, see the server's log.")
            run(f"failed: {fault}")
            self._claims.fail(build, fault, run.seconds)
            return "broke"
        else:
            return "succeeded"
        return "failed"

    def _steps(self, build: ClaimedBuild, run: "_Run") -> None:
        path = self._blobs.path(Digest(build.sha256))
        source = Source(build.version_id, path, build.label, build.number, build.sha256, build.description)
        plan = build.plan
        run(plan.summary)
        for note in plan.notes:
            run(f"note: {note}")
        with self._step(build, run, "unpack"):
            self._builder.unpack(source, plan, run)
        with self._step(build, run, "lock"):
            lock = self._builder.lock(plan, run)
        reference = self._builder.reference(lock, source)
        self._claims.refer(build, reference)
        with self._step(build, run, "install"):
            built = self._builder.install(reference, lock, run)
        with self._step(build, run, "package"):
            built = self._builder.package(source, built, plan, run)
        with self._step(build, run, "verify"):
            boot = self._builder.verify(source, built, plan, run)
        container_id = self._builder.settle(source, built, boot, plan, run)
        run(f"ready: port {boot.port}, started in {boot.boot_s:.2f} s")
        if self._claims.succeed(build, built, boot, container_id, run.seconds):
            self._builder.serve(build.label, build.version_id)

    @contextmanager
    def _step(self, build: ClaimedBuild, run: "_Run", name: str) -> Iterator[None]:
        run.check()
        self._claims.enter(build, name, run.seconds)
        began = time.monotonic()
        try:
            yield
        finally:
            run.seconds[name] = round(time.monotonic() - began, 3)
        run(f"{name}: {run.seconds[name]:.2f} s")

    @contextmanager
    def _held(self, build: ClaimedBuild) -> Iterator[threading.Event]:
        lost, done = threading.Event(), threading.Event()

        def renew() -> None:
            while not done.wait(self._renew_every_s):
                try:
                    if not self._claims.renew(build):
                        lost.set()
                except Exception:
                    # The database may come back before the lease ends; the fence keeps the rows right if it does not.
                    log.exception("lease not renewed", build=build.id)

        keeper = threading.Thread(target=renew, name=f"lease:{build.id}")
        keeper.start()
        try:
            yield lost
        finally:
            done.set()
            keeper.join()


class _Run:
    """The log of one build as its builder sees it, with the seconds of its steps."""

    def __init__(self, logs: BuildLogs, build: ClaimedBuild, ended: Callable[[], bool]) -> None:
        self._logs = logs
        self._build = build
        self._ended = ended
        self.seconds: dict[str, float] = {}

    def __call__(self, *lines: str) -> None:
        self._logs.append(self._build.id, self._build.fence, *lines)

    def check(self) -> None:
        """Raise where the build must end."""
        if self._ended():
            raise BuildCancelledError
