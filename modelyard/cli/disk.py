"""Commands on the disk of this machine's own Modelyard: disk, gc."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation

if TYPE_CHECKING:
    from modelyard.run.settings import Settings

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000


def disk(invocation: Invocation) -> None:
    """Tell what the data folder holds, and under Docker what it has in the engine, as the engine counts it.

    Examples:
      modelyard disk
      modelyard disk --json
    """
    from modelyard import yard_care  # noqa: PLC0415 - loads the whole server

    settings = _settings_of_a_yard(invocation)
    counted = yard_care.usage(settings)
    document = {"runtime": settings.runtime, "bytes": dict(counted), "total_bytes": sum(counted.values())}
    invocation.screen.table(document, ("what", "size"), _rows(counted))


def gc(
    invocation: Invocation,
    *,
    caches: Annotated[bool, typer.Option("--caches", help="Also what only makes later builds faster.")] = False,
) -> None:
    """Remove what a crash left behind, where no server runs; a running one does so by itself, every minute.

    Examples:
      modelyard gc
      modelyard gc --caches
    """
    from modelyard import yard_care  # noqa: PLC0415 - loads the whole server

    freed = yard_care.collect(_settings_of_a_yard(invocation), caches=caches)
    document = {"removed": freed.parts, "bytes_freed": freed.freed_bytes}
    invocation.screen.answer(document, f"removed {freed.parts}, freed {size(freed.freed_bytes)}")


def size(count: int) -> str:
    """A count of bytes for people, in units of 1000: `1.2 MB`."""
    amount, unit = float(count), 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{count} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    command(app, "disk", Reach.HERE)(disk)
    command(app, "gc", Reach.HERE)(gc)


def _rows(counted: Mapping[str, int]) -> list[tuple[str, str]]:
    rows = [(name, size(count)) for name, count in sorted(counted.items(), key=lambda each: -each[1])]
    return [*rows, ("total", size(sum(counted.values())))]


def _settings_of_a_yard(invocation: Invocation) -> "Settings":
    settings = invocation.settings()
    if not (settings.data / "lock").exists():
        raise Failure(ExitCode.NOT_FOUND, "no_data_folder", f"There is no Modelyard in {settings.data}.", "Name another with --data.")
    return settings
