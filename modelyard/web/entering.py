"""The tickets of models' own hosts, where another process of ours takes them at the door: answered on the internal listener alone."""

import json

from anyio import to_thread

from modelyard.domain.errors import NotFound
from modelyard.store.audit import Actor
from modelyard.web.access import Receive, Scope, Send, no_credential, principal_of
from modelyard.web.apps_gate import Enter
from modelyard.web.inside import CALLER
from modelyard.web.watching import is_internal

PATH = "/.inside/enter"
MOST_BYTES = 8192


class Entering:
    """An ASGI application of one call: `{ticket, label, address}` in, `{cookie}` out, null where the ticket is not good.

    Args:
        enter: Takes the ticket, from a thread.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            Unauthenticated: It came from outside, without a credential.
            NotFound: It came from outside, or asks for something else.
        """
        passed_on = any(name == CALLER for name, _ in scope["headers"])
        if not is_internal(scope) or passed_on or (scope["method"], scope["path"]) != ("POST", PATH):
            raise NotFound if principal_of(scope) else no_credential()
        asked = json.loads(await read_whole(receive))
        actor = Actor("", "", str(asked["address"]), scope["state"]["request_id"])
        cookie = await to_thread.run_sync(self._enter, str(asked["ticket"]), str(asked["label"]), actor)
        answer = json.dumps({"cookie": cookie}).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": answer})


async def read_whole(receive: Receive) -> bytes:
    """The body of a call from inside, which is short."""
    body, more = b"", True
    while more and len(body) < MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
