"""What a process answers before its parts are there, and what it believes of those that pass calls on."""

import asyncio
from typing import Any

from stage import Stage

from modelyard.run.service import Service
from modelyard.web.access import Message, Receive, Scope, Send
from modelyard.web.app import create_app
from modelyard.web.inside import Inside
from modelyard.web.starting import Starting

OUTSIDE = ("127.0.0.1", 8000)
INSIDE = ("/data/run/auth-1.sock", None)


async def health() -> tuple[int, dict[str, Any]]:
    return 503, {"status": "starting", "waits_for": {"database": "It is away."}}


class Seen:
    """An application that notes where calls come from."""

    def __init__(self) -> None:
        self.clients: list[object] = []
        self.schemes: list[object] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.clients.append(scope["client"])
        self.schemes.append(scope.get("scheme"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


def call(
    app: object, path: str, *fields: tuple[bytes, bytes], host: bytes = b"localhost", server: object = OUTSIDE
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, the fields and the body of the answer."""
    told: list[Message] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", host), *fields],
        "scheme": "http",
        "http_version": "1.1",
        "server": server,
        "client": ("192.0.2.1", 1),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        told.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[operator]
    return told[0]["status"], dict(told[0]["headers"]), b"".join(each.get("body", b"") for each in told[1:])


def test_everything_is_put_off_but_health() -> None:
    starting = Starting(("console.example",), "apps.localhost", health)
    status, fields, body = call(starting, "/models/ada", (b"authorization", b"Bearer x"))
    assert (status, fields[b"retry-after"], b'"starting"' in body) == (503, b"1", True)
    assert call(starting, "/m/ada/app/")[0] == 503
    assert call(starting, "/", host=b"app.apps.localhost")[0] == 503
    assert call(starting, "/health")[::2] == (503, b'{"status":"starting","waits_for":{"database":"It is away."}}')
    assert call(starting, "/livez")[0] == 200
    assert call(starting, "/health", host=b"evil.example")[0] == 421


def test_calls_go_to_the_application_once_it_is_there() -> None:
    starting = Starting((), "apps.localhost", health)
    starting.app = Seen()
    assert call(starting, "/health")[::2] == (200, b"here")


def test_the_application_hangs_up_though_it_came_after_the_servers_start(stage: Stage) -> None:
    ended: list[str] = []
    starting = Starting((), "apps.localhost", health)
    told: list[str] = []

    async def live() -> None:
        events = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> Message:
            if told:  # it has started
                starting.app = create_app([*stage.services, Service("ending", hang_up=lambda: ended.append("hung up"))], stage.credentials)
            return {"type": next(events)}

        async def send(message: Message) -> None:
            told.append(message["type"])

        await starting({"type": "lifespan"}, receive, send)

    asyncio.run(live())
    assert (ended, told) == (["hung up"], ["lifespan.startup.complete", "lifespan.shutdown.complete"])


def test_a_callers_address_is_believed_on_the_unix_socket_alone() -> None:
    seen = Seen()
    told = (b"x-modelyard-caller", b"198.51.100.9")
    call(Inside(seen), "/", told, server=INSIDE)
    call(Inside(seen), "/", told, server=OUTSIDE)
    call(Inside(seen), "/", server=INSIDE)
    call(Inside(seen), "/", told, told, server=INSIDE)
    assert seen.clients == [("198.51.100.9", 0), *[("192.0.2.1", 1)] * 3]


def test_a_callers_scheme_is_believed_with_its_address_alone() -> None:
    seen = Seen()
    passed_on, https, odd = (b"x-modelyard-caller", b"198.51.100.9"), (b"x-modelyard-scheme", b"https"), (b"x-modelyard-scheme", b"file")
    call(Inside(seen), "/", passed_on, https, server=INSIDE)
    for fields in ((https,), (passed_on,), (passed_on, odd), (passed_on, https, https)):
        call(Inside(seen), "/", *fields, server=INSIDE)
    call(Inside(seen), "/", passed_on, https, server=OUTSIDE)
    assert seen.schemes[0] == "https"
    assert len(set(seen.schemes[1:]) - {"https"}) == 1
