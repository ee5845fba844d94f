"""Makes a function into a command: the common options, and one place where failures become exit codes."""

import inspect
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, NoReturn, ParamSpec, cast

import typer
from typer.core import TyperGroup

from modelyard.cli.failures import ExitCode, Failure, from_domain, from_unforeseen
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen
from modelyard.domain.errors import ModelyardError

P = ParamSpec("P")

_PANEL = "Common options"


def option(name: str, metavar: str, words: str, envvar: str | None = None) -> Any:
    """A common option; only the one before the command's name reads the environment, so that any flag wins over it."""
    return typer.Option(name, metavar=metavar, help=words, envvar=envvar, rich_help_panel=_PANEL)


_SERVER = ("--server", "URL", "The server to speak to.")
_DATA = ("--data", "DIR", "The data folder.")
_TOKEN = ("--token", "KEY", "The API key.")
_OWNER = ("--owner", "NAME", "Whose models; yours by default.")

RuntimeFlag = Annotated[
    Literal["process", "docker"] | None,
    typer.Option(help="How apps run: as sandboxed processes, or in containers. [default: process]", show_default=False),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.", rich_help_panel=_PANEL)]
DataFlag = Annotated[Path | None, option(*_DATA)]
ServerFlag = Annotated[str | None, option(*_SERVER)]
TokenFlag = Annotated[str | None, option(*_TOKEN)]
OwnerFlag = Annotated[str | None, option(*_OWNER)]
DataSetting = Annotated[Path | None, option(*_DATA, "MODELYARD_DATA")]
ServerSetting = Annotated[str | None, option(*_SERVER, "MODELYARD_SERVER")]
TokenSetting = Annotated[str | None, option(*_TOKEN, "MODELYARD_TOKEN")]
OwnerSetting = Annotated[str | None, option(*_OWNER, "MODELYARD_OWNER")]


class Reach(Enum):
    """Whether a command speaks to a server, and so which common options it takes."""

    HERE = "here"
    SERVER = "server"


def _here(data: DataFlag = None, *, as_json: JsonFlag = False) -> None: ...


def _server(
    server: ServerFlag = None, data: DataFlag = None, token: TokenFlag = None, owner: OwnerFlag = None, *, as_json: JsonFlag = False
) -> None: ...


_COMMON = {
    Reach.HERE: tuple(inspect.signature(_here).parameters.values()),
    Reach.SERVER: tuple(inspect.signature(_server).parameters.values()),
}


def command(
    app: typer.Typer, name: str, reach: Reach = Reach.SERVER
) -> Callable[[Callable[Concatenate[Invocation, P], None]], Callable[Concatenate[Invocation, P], None]]:
    """Register a function as a command; it gets the invocation first, and then what its own signature asks for.

    The common options may stand before or after the command's name; after it wins.
    """

    def register(function: Callable[Concatenate[Invocation, P], None]) -> Callable[Concatenate[Invocation, P], None]:
        def run(ctx: typer.Context, **values: Any) -> None:
            said = {each.name: values.pop(each.name) for each in _COMMON[reach]}
            invocation = (ctx.find_object(Invocation) or Invocation()).with_flags(**said)
            with _Edge(invocation.screen):
                cast("Callable[..., None]", function)(invocation, **values)

        _, *own = inspect.signature(function).parameters.values()
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *_COMMON[reach])]
        cast("Any", run).__signature__ = inspect.Signature([context, *keyword_only])
        run.__doc__ = function.__doc__
        app.command(name)(run)
        return function

    return register


class _Edge:
    """The process's edge: no error passes it as a traceback."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, BrokenPipeError) or not isinstance(error, Exception) or isinstance(error, _PASSING):
            return
        failure = (
            error if isinstance(error, Failure) else from_domain(error) if isinstance(error, ModelyardError) else from_unforeseen(error)
        )
        self._screen.fail(failure)
        raise typer.Exit(int(failure.exit_code)) from error


_PASSING = (typer.Exit, typer.Abort, typer.TyperException)


class Group(TyperGroup):
    """The group of all commands; a wrong call ends with `Try: ...` as every other failure does."""

    def main(self, args: Sequence[str] | None = None, *other: Any, **options: Any) -> NoReturn:
        """Run the command that `args` name and end the process with its exit code."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, *other, **options | {"standalone_mode": False})
        except typer.Abort:
            code = ExitCode.INTERRUPTED
        except typer.TyperException as error:
            code = _tell_usage(error, as_json="--json" in words)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _tell_usage(error: typer.TyperException, *, as_json: bool) -> int:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "modelyard"
    failure = Failure(ExitCode(error.exit_code), "usage", error.format_message(), f"{path} --help")
    Screen(as_json=as_json).fail(failure)
    return error.exit_code
