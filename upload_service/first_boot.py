"""The first boot of a version: once under its own limits, until it is ready, and nothing of it is left."""

import time
from collections.abc import Callable

from modelyard.domain.plan import MIB, Plan
from modelyard.domain.states import ExitReason
from modelyard.runtime.probe import NeverReadyError, ProbeStoppedError, wait_ready
from modelyard.runtime.runtime import InstanceSpec, NoSuchInstanceError, Role, Runtime, StartError
from upload_service.builders import Boot, BuildCancelledError, BuildError, Built, Log, Source
from upload_service.crash_reading import read_crash

SHOWN_BYTES = 8192

VERIFY = "verify-"
"""How the names of first boots begin."""


def verify_name(version_id: str) -> str:
    """The name of the instance that a version is verified by."""
    return f"{VERIFY}{version_id}"


def first_boot(runtime: Runtime, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
    """Boot the app, wait until it is ready, and leave nothing of it.

    Raises:
        BuildError: As `boot_alone`.
        BuildCancelledError: The build must end.
    """
    try:
        return boot_alone(runtime, source, built, plan, log)
    finally:
        forget_boot(runtime, verify_name(source.version_id))


def boot_alone(runtime: Runtime, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
    """As `first_boot`; whoever asks for it calls `forget_boot` afterwards, however it ends.

    Raises:
        BuildError: `never_ready`, `crashed_at_start`, `oom_killed`, `sandbox_failed`, or what its last words say.
        BuildCancelledError: The build must end.
    """
    name, began = verify_name(source.version_id), time.monotonic()
    spec = InstanceSpec(name, Role.VERIFY, source.version_id, built.reference, plan, source.label)
    runtime.remove(name)
    try:
        runtime.create(spec)
        start = runtime.start(name)
        address = wait_ready(runtime, name, start, plan, plan.limits.start_deadline_s, _told(log))
        boot_s = time.monotonic() - began
        peak_bytes = runtime.usage(name).memory_bytes
    except ProbeStoppedError as error:
        raise BuildCancelledError from error
    except NeverReadyError as error:
        output = runtime.logs(name, SHOWN_BYTES).decode("utf-8", "replace")
        log(*(f"app: {line}" for line in output.splitlines()))
        raise _never_ready(error, plan, output) from error
    except (NoSuchInstanceError, StartError) as error:
        raise not_started(error) from error
    if address.port != runtime.port(name):
        log(f"note: the app listens on port {address.port}, not on the {runtime.port(name)} of PORT; calls go to {address.port}")
    return Boot(boot_s, peak_bytes, address.host, address.port)


def forget_boot(runtime: Runtime, name: str) -> None:
    """End and remove what a version was booted as, and what that printed."""
    runtime.remove(name)
    runtime.forget_logs(name)


def not_started(error: Exception) -> BuildError:
    """The end of a build whose app this machine could not start: the platform's trouble, not the app's."""
    return BuildError("sandbox_failed", f"The app could not be started: {error}", "Run `modelyard doctor`.")


def _told(log: Log) -> Callable[[], bool]:
    def ended() -> bool:
        try:
            log.check()
        except BuildCancelledError:
            return True
        return False

    return ended


def _never_ready(error: NeverReadyError, plan: Plan, output: str) -> BuildError:
    if error.reason is ExitReason.OOM_KILLED:
        mib = plan.limits.memory_bytes // MIB
        return BuildError(
            "oom_killed", f"The app used more than its {mib} MiB of memory while it started.", "Raise [limits] memory in modelyard.toml."
        )
    if reading := read_crash(output):
        return BuildError(reading.code, reading.message, reading.mend)
    if error.reason is ExitReason.CRASHED:
        return BuildError("crashed_at_start", f"The app ended while it started: {error.detail}.", "See its last lines in the build's log.")
    mend = f"Let it listen on $PORT and answer GET {plan.health} below 500, or load less before it listens."
    return BuildError("never_ready", f"The app did not answer within {plan.limits.start_deadline_s:.0f} s.", mend)
