"""The command that shows everything at once: start, upload, build, predict, events."""

import json
import signal
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from modelyard.cli.builds import FAILED_STATUS, failed, watch
from modelyard.cli.command import Reach, command
from modelyard.cli.deploy import send
from modelyard.cli.failures import ExitCode, Failure
from modelyard.cli.invocation import Invocation
from modelyard.cli.screen import Screen
from modelyard.domain.events import ModelStarted, ModelUploaded

if TYPE_CHECKING:
    from pydantic import JsonValue

    from modelyard.client import Client
    from modelyard.embedded import Running

OWNER, NAME = "testuser", "test-model"
INPUT: "dict[str, JsonValue]" = {"input": "hello"}
EVENT_WAIT_S = 5.0


def demo(
    invocation: Invocation,
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the answer instead of waiting for Ctrl-C.")] = False,
) -> None:
    """Start Modelyard on a free port, upload an example, and call it.

    Examples:
      modelyard demo
      modelyard demo --once --json
    """
    from modelyard import embedded  # noqa: PLC0415 - loads the whole server

    with ExitStack() as held, _ending_on_sigterm():
        if invocation.data is None:
            fresh = held.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-demo-", ignore_cleanup_errors=True))
            invocation = replace(invocation, data=Path(fresh))
        steps = Steps(invocation.screen)
        with steps.timed("start"):
            running = held.enter_context(embedded.started(invocation.settings(port=0, log_level="warning")))
        _shown(replace(invocation, server=running.url), running, steps)
        if not once:
            _wait(invocation.screen, running, invocation.data)


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    command(app, "demo", Reach.HERE)(demo)


class Steps:
    """How long each step took, in seconds, told as it ends."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Take the time of what happens within."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)
        self._screen.say(f"{name}: {self.seconds[name]:.2f} s", style="bold")


def _shown(invocation: Invocation, running: "Running", steps: Steps) -> None:
    screen = invocation.screen
    for warning in running.warnings:
        screen.say(f"warning: {warning}", style="yellow")
    with invocation.connect() as client:
        _deployed(invocation, client, steps)
        with steps.timed("predict"):
            answer = client.predict(OWNER, NAME, json=INPUT)
    if answer.is_error:
        raise Failure(ExitCode.FAILED, "model_refused", f"The model answered {answer.status_code}: {answer.text}", "modelyard doctor")
    prediction, events = answer.json(), _events(running)
    for event in events:
        screen.say(f"event: {event['event']}  {json.dumps(event['data'], ensure_ascii=False)}", style="dim")
    document = {"url": running.url, "prediction": prediction, "events": events, "seconds": steps.seconds}
    screen.answer(document, json.dumps(prediction, ensure_ascii=False))


def _deployed(invocation: Invocation, client: "Client", steps: Steps) -> None:
    from modelyard.run.resources import demo_bytes  # noqa: PLC0415 - only the demo needs it

    with tempfile.TemporaryDirectory(prefix="modelyard-demo-") as folder:
        example = Path(folder) / f"{NAME}.zip"
        example.write_bytes(demo_bytes())
        with steps.timed("upload"):
            taken = send(invocation, client, example, OWNER, NAME)
    with steps.timed("build"):
        if taken.build_id and taken.status != "ready":
            build = watch(invocation.screen, client, taken.build_id)
            if build.status in FAILED_STATUS:
                raise failed(build)


_TOLD = {ModelUploaded.wire_name, ModelStarted.wire_name}


def _events(running: "Running") -> list[dict[str, Any]]:
    # Events reach the bus a moment after what they tell of: the relay is woken by the commit.
    deadline = time.monotonic() + EVENT_WAIT_S
    while True:
        events = running.events()
        if {event["event"] for event in events} >= _TOLD or time.monotonic() > deadline:
            return events
        time.sleep(0.05)


def _wait(screen: Screen, running: "Running", data: Path | None) -> None:
    call = f"{running.url}/m/{OWNER}/{NAME}/predict"
    screen.say(f"open   {running.first_link}  (works once)")
    screen.say(f"""call   curl -H "Authorization: Bearer $(modelyard token --data {data})" --json '{json.dumps(INPUT)}' {call}""")
    screen.say("end    Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("ending")


@contextmanager
def _ending_on_sigterm() -> Generator[None]:
    """Make SIGTERM end the demo as Ctrl-C does, so that no process stays behind."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
