"""The command that calls a model."""

import json
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.command import command
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.names import ModelArgument, parse_model
from modelyard.cli.screen import Screen

if TYPE_CHECKING:
    from httpx2 import Response


def predict(
    invocation: Invocation,
    model: ModelArgument,
    body: Annotated[
        str | None, typer.Option("--json-body", "-d", metavar="DATA", help="JSON; @FILE reads it from a file, @- from input.")
    ] = None,
    form: Annotated[
        list[str] | None, typer.Option("--form", "-f", metavar="FIELD=VALUE", help="A form field; FIELD=@FILE sends a file.")
    ] = None,
    path: Annotated[str, typer.Option(help="The path inside the app.")] = "/predict",
    method: Annotated[str, typer.Option("--method", "-X", help="The HTTP method.")] = "POST",
) -> None:
    """Call a model and print its answer.

    Examples:
      modelyard predict fruit -d '{"input": "hello"}'
      modelyard predict ada/fruit -f image=@apple.jpg --path /predict
    """
    owner, name = parse_model(invocation, model)
    if body is not None and form:
        raise Failure(ExitCode.USAGE, "two_bodies", "A call has one body: -d and -f exclude each other.", "modelyard predict --help")
    with invocation.connect() as client, _form(form or []) as fields:
        answer = client.predict(owner, name, path, method=method.upper(), json=_json(body), **fields)
    if answer.is_error:
        raise _refused(invocation.screen, answer, f"{owner}/{name}")
    _show(invocation.screen, answer)


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "predict")(predict)


def _json(body: str | None) -> Any:
    if body is None:
        return None
    if body.startswith("@"):
        body = sys.stdin.read() if body == "@-" else _readable(Path(body[1:])).read_text(encoding="utf-8")
    try:
        return json.loads(body)
    except ValueError as error:
        raise Failure(
            ExitCode.USAGE, "not_json", f"The body is not JSON: {error}", """modelyard predict MODEL -d '{"input": "hello"}'"""
        ) from error


@contextmanager
def _form(pairs: Sequence[str]) -> Generator[dict[str, Any]]:
    data: dict[str, str] = {}
    files: dict[str, tuple[str, IO[bytes]]] = {}
    with ExitStack() as opened:
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not name or not equals:
                raise Failure(ExitCode.USAGE, "not_a_field", f"{pair!r} is not FIELD=VALUE.", "modelyard predict MODEL -f image=@apple.jpg")
            if value.startswith("@"):
                source = _readable(Path(value[1:]))
                files[name] = (source.name, opened.enter_context(source.open("rb")))
            else:
                data[name] = value
        yield {"data": data or None, "files": files or None}


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise Failure(ExitCode.USAGE, "no_such_file", f"There is no file {path}.", "Name a file after the @.")
    return path


def _refused(screen: Screen, answer: "Response", model: str) -> Failure:
    if not screen.as_json:
        _show(screen, answer)
    extra = {"status": answer.status_code, "content_type": answer.headers.get("content-type", ""), "text": answer.text}
    message, mend = (
        f"The model answered {answer.status_code} {answer.reason_phrase}.",
        f"Correct the input, or look at `modelyard show {model}`.",
    )
    return Failure(ExitCode.FAILED, "model_refused", message, mend, extra)


def _show(screen: Screen, answer: "Response") -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind == "application/json" or kind.endswith("+json"):
        with suppress(ValueError):
            document = answer.json()
            screen.answer(document, json.dumps(document, ensure_ascii=False))
            return
    if screen.as_json or kind.startswith("text/") or kind.endswith("json"):
        screen.answer({"status": answer.status_code, "content_type": kind, "text": answer.text}, answer.text.rstrip("\n"))
    else:
        screen.write(answer.content)
