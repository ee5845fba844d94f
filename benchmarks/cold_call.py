"""A call to a stopped model, against starting the same server by hand; and fifty callers at once, against one."""

import time
from pathlib import Path

from benchmarks.ground import ByHand, Server, app_zip
from benchmarks.load import closed_loop
from benchmarks.result import Result
from benchmarks.rounds import Figures, WrongAnswerError, measure

CALLERS = 50
NAME = "cold"
# A model that is stopped soon, and a server that looks often: what is waited for between two rounds, and not measured.
MODEL = "[idle]\nfreeze_s = 60\nstop_s = 0.2\n"
SERVER = "[run]\nlook_every_s = 0.05\n"


def cold_call(folder: Path, cache: Path) -> list[Result]:
    """The first 200 of one call to a stopped model."""
    with Server(folder, cache, SERVER) as server:
        version = server.upload(NAME, app_zip(MODEL))
        environment, code = server.environment(), server.code(str(version["id"]))

        def ours(_: int) -> Figures:
            return {"cold_s": call_stopped(server, NAME)}

        def control(_: int) -> Figures:
            began = time.perf_counter()
            with ByHand(folder / "by-hand", environment, code) as app:
                app.wait_ready()
                app.predict()
                return {"cold_s": time.perf_counter() - began}

        for arm in (ours, control):
            arm(0)
        measured = measure(ours, control, "cold_s")
    return [
        Result(
            "cold-call",
            "call to a stopped model: start in the sandbox, wait until ready, answer",
            "by hand: start the same server without a sandbox, poll, call",
            "none set for the process runtime",
            measured,
        )
    ]


def herd(folder: Path, cache: Path) -> list[Result]:
    """Fifty callers at once on a stopped model: one start must serve them all."""
    starts: list[int] = []
    with Server(folder, cache, SERVER) as server:
        server.upload(NAME, app_zip(MODEL))

        def ours(_: int) -> Figures:
            before = events_once_stopped(server, NAME)
            load = closed_loop(server.call(NAME), connections=CALLERS, calls=CALLERS)
            begun = events_once_stopped(server, NAME).count("model.started") - before.count("model.started")
            starts.append(begun)
            if begun != 1:
                raise WrongAnswerError(f"{begun} starts for {CALLERS} callers")
            return {"last_s": load.took_s, "first_s": load.latencies_s[0]}

        def control(_: int) -> Figures:
            took_s = call_stopped(server, NAME)
            return {"last_s": took_s, "first_s": took_s}

        measured = measure(ours, control, "last_s")
    return [
        Result(
            "herd",
            f"{CALLERS} callers at once on a stopped model, until the last has its 200",
            "one caller on a stopped model",
            f"P12: {CALLERS} x 200, 1 start",
            measured,
            facts={"callers": CALLERS, "starts_of_each_herd": starts},
        )
    ]


def call_stopped(server: Server, name: str, *, wait: bool = True) -> float:
    """The seconds of one call to the model once it is stopped.

    Args:
        wait: Whether it may still have to stop.
    """
    if wait:
        events_once_stopped(server, name)
    return closed_loop(server.call(name), connections=1, calls=1).took_s


def events_once_stopped(server: Server, name: str) -> list[str]:
    """The model's events once it is stopped and the bus has told of it: every start before that stop is among them."""
    server.wait_stopped(name)
    while (events := server.events(name)).count("model.started") != events.count("model.stopped"):
        time.sleep(0.01)
    return events
