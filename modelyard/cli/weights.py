"""The command that brings the weights of the built-in models here."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Self

import typer

from modelyard.cli.command import Reach, command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen
from modelyard.domain.weights import ENTRIES

if TYPE_CHECKING:
    from modelyard.weights.folder import Kept


def pull(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help=f"{' or '.join(ENTRIES)}.", show_default=False)],
    source: Annotated[
        str | None, typer.Option("--from", metavar="DIR|NAME", help="A checkpoint's folder, or its name on the hub.", show_default=False)
    ] = None,
    sha256: Annotated[str, typer.Option(metavar="HEX", help="The digest that model.safetensors must have.", show_default=False)] = "",
    *,
    again: Annotated[bool, typer.Option("--again", help="Pull though they are here.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no hub: from a folder, or check what is here.")] = False,
) -> None:
    """Bring the weights of a built-in model here; a server that runs on the data folder serves it from then on.

    Examples:
      modelyard models pull mobilenet
      modelyard models pull mobilenet --from ./mobilenet_v2_1.0_224
      modelyard models pull clip --from owner/name@revision
    """
    from modelyard.run.folder_lock import prepare  # noqa: PLC0415 - `--help` need not load what pulls
    from modelyard.run.resources import bundled  # noqa: PLC0415 - as the line before
    from modelyard.weights.folder import WeightsFolder  # noqa: PLC0415 - as the line before
    from modelyard.weights.pull import pull as run  # noqa: PLC0415 - as the line before
    from modelyard.weights.pull import wanted, whole  # noqa: PLC0415 - as the line before

    entry = ENTRIES.get(name)
    if entry is None:
        raise Failure(
            ExitCode.NOT_FOUND, "no_such_weights", f"There are no weights {name!r}.", f"modelyard models pull {next(iter(ENTRIES))}"
        )
    settings = invocation.settings()
    prepare(settings.data)
    weights, what = WeightsFolder(settings.data / "weights"), wanted(entry, source, sha256.lower())
    if not again and source is None and (offline or weights.kept(name)):
        _tell(invocation.screen, name, whole(weights, name), "are here, and whole")
        return
    if offline and what.folder is None:
        raise Failure(ExitCode.USAGE, "offline", f"{what.source} is on the hub, and --offline asks none.", "Name a folder: --from DIR")
    with _Bars(invocation.screen) as told:
        kept = run(what, weights, bundled("models") / "tools", settings.models.hub_url, told)
    _tell(invocation.screen, name, kept, "are here")


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    models = typer.Typer()
    command(models, "pull", Reach.HERE)(pull)
    # A group of one command would take the command's place.
    models.callback()(lambda: None)
    app.add_typer(models, name="models", help="The built-in models and their weights.")


class _Bars:
    """Shows how a pull goes on, a bar for each file."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    def file(self, name: str) -> Callable[[int, int], None]:
        """See `Told.file`."""
        self._shown.close()
        return self._shown.enter_context(self._screen.bytes_bar(name))

    def step(self, words: str) -> None:
        """See `Told.step`."""
        self._shown.close()
        self._screen.say(f"{words} ...")


def _tell(screen: Screen, name: str, kept: "Kept", words: str) -> None:
    told = {"name": name, "source": kept.source, "revision": kept.revision, "folder": str(kept.folder), "files": dict(kept.files)}
    screen.answer(told, str(kept.folder))
    screen.say(f"The weights of {name} {words}: {kept.source}" + (f" at {kept.revision}" if kept.revision else ""))
