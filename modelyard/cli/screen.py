"""What a command writes: data to standard output, talk to standard error; colour and motion on a terminal only."""

import json
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table

from modelyard.cli.failures import Failure

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Columns = Sequence[str]
Row = Sequence[str]


def harmless(text: str) -> str:
    """The text without control characters: an app's log must not steer the terminal that shows it."""
    return _CONTROL.sub("", text)


class Screen:
    """Where one command writes.

    Args:
        as_json: Standard output gets one JSON document and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None) -> None:
        """A line for people."""
        self._err.print(harmless(text), style=style)

    def answer(self, document: object, text: str) -> None:
        """The command's result: `document` under `--json`, else `text`."""
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2) if self.as_json else harmless(text))

    def write(self, content: bytes) -> None:
        """Bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    def table(self, document: object, columns: Columns, rows: Sequence[Row]) -> None:
        """A table: `document` under `--json`, drawn on a terminal, else aligned columns of plain text."""
        if self.as_json or not self._out.is_terminal:
            self.answer(document, _aligned([[column.upper() for column in columns], *rows]))
            return
        drawn = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            drawn.add_column(column, overflow="fold")
        for row in rows:
            drawn.add_row(*(harmless(cell) for cell in row))
        self._out.print(drawn)

    def pairs(self, document: object, pairs: Sequence[tuple[str, str]]) -> None:
        """Names with their values, one a line; `document` under `--json`."""
        if self.as_json or not self._out.is_terminal:
            self.answer(document, _aligned([list(pair) for pair in pairs]))
            return
        drawn = Table(box=None, show_header=False, pad_edge=False)
        drawn.add_column(style="bold")
        drawn.add_column(overflow="fold")
        for name, value in pairs:
            drawn.add_row(name, harmless(value))
        self._out.print(drawn)

    def fail(self, failure: Failure) -> None:
        """Why the command failed and what to do; under `--json` the same on standard output."""
        self._err.print(f"Error: {harmless(failure.message)}", style="red")
        self._err.print(f"Try: {harmless(failure.mend)}")
        if self.as_json:
            told = {"code": failure.code, "message": failure.message, "mend": failure.mend, "exit_code": int(failure.exit_code)}
            self.answer({"error": failure.extra | told}, "")

    @property
    def can_ask(self) -> bool:
        """Whether a person sits at both ends."""
        return sys.stdin.isatty() and self._err.is_terminal

    @contextmanager
    def bytes_bar(self, what: str) -> Generator[Callable[[int, int], None]]:
        """A bar that takes bytes done and bytes in all; a single line off a terminal."""
        if not self._err.is_terminal:
            self.say(f"{what} ...")
            yield lambda _done, _total: None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415 - slow, rarely needed

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self._err) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextmanager
    def spinner(self, what: str) -> Generator[None]:
        """A moving line below what is said meanwhile; nothing off a terminal."""
        if not self._err.is_terminal:
            yield
            return
        with self._err.status(what):
            yield


def _aligned(rows: Sequence[Row]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
