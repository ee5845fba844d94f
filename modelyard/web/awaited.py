"""Lets callers of a built-in model in, and tells those that come before its weights what is missing."""

from collections.abc import Callable, Collection

from modelyard.domain.accounts import may_predict
from modelyard.domain.errors import NotReady
from modelyard.domain.ids import PLATFORM
from modelyard.runtime.routes import Route
from modelyard.web.access import Principal, admit_call

RETRY_AFTER_S = 10


def admitting(builtins: Collection[str]) -> Callable[[Principal | None, str, str, Route | None], Route]:
    """What the front door asks who may call, where these models are served as the platform's own."""

    def admit(principal: Principal | None, owner: str, name: str, route: Route | None) -> Route:
        known = owner == PLATFORM and name in builtins
        if route is None and known and principal is not None and may_predict(principal.scopes, owner, name):
            raise NotReady(
                "weights_missing",
                f"The built-in model {name} does not serve: its weights are not on this server yet, or it is being built.",
                f"Run on the server: modelyard models pull {name}",
                retry_after_s=RETRY_AFTER_S,
            )
        return admit_call(principal, owner, name, route)

    return admit
