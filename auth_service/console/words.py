"""How the account's page tells roles, scopes and devices: in words that people use."""

import re
from collections.abc import Mapping

from modelyard.domain.accounts import ONE_MODEL, Role, Scope

ROLES: Mapping[Role, str] = {
    Role.ADMIN: "Administrator: acts for everybody.",
    Role.MEMBER: "Member: uploads models, and calls them.",
    Role.VIEWER: "Viewer: calls the models that others share.",
}
SCOPES: Mapping[str, str] = {
    Scope.PREDICT: "Call models",
    Scope.READ: "See models, builds and logs",
    Scope.WRITE: "Upload, share and delete models",
    Scope.ACCOUNT: "Manage the account and its keys",
    Scope.ADMIN: "Administer the server",
}
_SYSTEMS = (("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS", "macOS"), ("Linux", "Linux"))
# The order counts: Edge and Opera also call themselves Chrome, and Chrome calls itself Safari.
_BROWSERS = (
    (r"Edg(?:e|A|iOS)?/", "Edge"),
    (r"OPR/", "Opera"),
    (r"(?:Firefox|FxiOS)/", "Firefox"),
    (r"(?:Chrome|CriOS)/", "Chrome"),
    (r"Safari/", "Safari"),
)


def scope_words(scope: str) -> str:
    """What a credential with this scope may do."""
    if scope.startswith(ONE_MODEL):
        return f"Call {scope.removeprefix(ONE_MODEL)}"
    return SCOPES.get(scope, scope)


def device_words(agent: str) -> str:
    """The client by what it called itself, which nobody checks: a browser and its system, else its own words."""
    browser = next((word for pattern, word in _BROWSERS if re.search(pattern, agent)), "")
    system = next((word for token, word in _SYSTEMS if token in agent), "")
    if browser:
        return f"{browser} on {system}" if system else browser
    return agent[:60] or "A client without a name"
