"""What the matrix of routes and callers is made of: what may be expected, who calls, and the objects that are meant."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import select
from stage import ORIGIN, Stage, app_zip, form
from starlette.testclient import TestClient

from modelyard.domain.accounts import ALL_SCOPES, AccountState, Role, Scope
from modelyard.domain.states import VersionState
from modelyard.store.account_tables import AccountRow, ApiKeyRow
from modelyard.store.tables import ModelRow, ShareRow, VersionRow
from modelyard.web.access import Action, declared
from modelyard.web.app import _own_routes

CANARY = "canary-8231"
NO_KEY = "0" * 12
NO_ID = "01a1fdef-d34c-7b2b-b907-ad79986bfbb8"

# Who may do what, said a second time and in other words than the code does.
READS = {Action.READ, Action.PREDICT, Action.ACCOUNT}
WRITES = {Action.UPLOAD, Action.DELETE, Action.SHARE}
BY_ROLE = {Role.VIEWER: READS, Role.MEMBER: READS | WRITES, Role.ADMIN: READS | WRITES | {Action.ADMINISTER}}
BY_SCOPE: dict[str, set[Action]] = {
    Scope.READ: {Action.READ},
    Scope.WRITE: WRITES,
    Scope.ACCOUNT: {Action.ACCOUNT},
    Scope.ADMIN: {Action.ADMINISTER},
}
WITHOUT_SCOPE = {Action.PREDICT}
"""What asks for the scope once it knows the model."""


@dataclass(frozen=True)
class Owned:
    """One of each kind of object, all of one owner: what stands in a path for the parameter of that name."""

    username: str
    model_name: str
    upload_id: str
    build_id: str
    label: str
    key_id: str
    session_id: str

    def path(self, template: str) -> str:
        """The path with the parameters filled in; raises where one is of no known kind."""
        return re.sub(r"\{(\w+)\}", lambda found: str(getattr(self, found[1])), template)


def nothing(_: Owned) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Line:
    """What must be known of a route that takes a body, or that is not like the others.

    Args:
        words: The body, for the objects that are meant.
        missing: The answer about a missing object to whoever may act for everybody.
        own: A further status that whoever may do it can get.
        names: The body, not the path, names whose object is meant.
        spends: The object, or the caller's credential, is gone afterwards.
    """

    words: Callable[[Owned], dict[str, Any]] = nothing
    missing: int = 404
    own: int = 200
    names: bool = False
    spends: bool = False


def uploaded(of: Owned) -> dict[str, Any]:
    return form("matrix", owner=of.username)


LINES: Mapping[str, Line] = {
    "POST /upload": Line(uploaded, missing=202, names=True),
    "POST /upload/form": Line(uploaded, missing=303, names=True),
    "GET /models/{username}": Line(missing=200),
    "PUT /models/{username}/{model_name}/access": Line(lambda _: {"json": {"public": False, "users": []}}),
    "DELETE /models/{upload_id}": Line(spends=True),
    "DELETE /models/{username}/{model_name}": Line(spends=True),
    "POST /console/{username}/{model_name}/access": Line(lambda _: {"data": {"users": ""}}),
    "POST /console/{username}/{model_name}/delete": Line(lambda of: {"data": {"name": of.model_name}}, spends=True),
    "GET /open/{username}/{model_name}": Line(own=403),  # a key is no browser
    "GET /open/{label}": Line(own=403),
    "POST /first": Line(own=404),  # a browser makes no links
    "POST /auth/logout": Line(spends=True),
    "POST /auth/password": Line(lambda _: {"json": {"password": "x"}}, own=403),  # a key chooses no first password
    "DELETE /auth/sessions/{session_id}": Line(spends=True),
    "POST /auth/keys": Line(lambda _: {"json": {"name": "matrix", "scopes": ["account"]}}),
    "DELETE /auth/keys/{key_id}": Line(spends=True),
    "POST /auth/users": Line(lambda _: {"json": {"username": "matrix-made"}}),
    "PATCH /auth/users/{username}": Line(lambda _: {"json": {}}),
    "POST /auth/users/{username}/invite": Line(missing=201),
    "PUT /auth/users/{username}/password": Line(lambda _: {"json": {"password": "x"}}),
    "POST /logout": Line(spends=True),
    "POST /account/keys": Line(lambda _: {"data": {"name": "matrix", "scopes": "account"}}),
    "POST /account/keys/{key_id}/revoke": Line(spends=True),
    "POST /account/password": Line(lambda _: {"data": {"password": "x"}}, own=403),
    "POST /account/sessions/{session_id}/end": Line(spends=True),
}
PERSONAL = {"session_id"}
"""Objects that even an administrator has for themself alone."""


@dataclass(frozen=True)
class Route:
    """One route as it declares itself."""

    method: str
    template: str
    action: Action
    shown: bool = True

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def line(self) -> Line:
        """What must be known of it."""
        return LINES.get(self.name, Line())

    @property
    def is_told(self) -> bool:
        """Whether all is known that must be: the kinds of its parameters, and what it is sent."""
        known = self.parameters <= {each.name for each in fields(Owned)}
        return self.action is Action.PUBLIC or (known and (self.method == "GET" or self.name in LINES))

    @property
    def parameters(self) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", self.template))

    @property
    def is_of_objects(self) -> bool:
        return bool(self.parameters) or self.line.names


@dataclass(frozen=True)
class Who:
    """A caller: an account's role and what its credential is good for.

    Args:
        scopes: None: there is no good credential.
    """

    name: str
    role: Role = Role.MEMBER
    scopes: frozenset[str] | None = ALL_SCOPES
    by_cookie: bool = False

    def may(self, action: Action) -> bool:
        if self.scopes is None:
            return False
        granted = set().union(WITHOUT_SCOPE, *(BY_SCOPE.get(scope, set()) for scope in self.scopes))
        return action in BY_ROLE[self.role] & granted


NOBODY = [Who("anonymous", scopes=None), Who("disabled", scopes=None), Who("revoked", scopes=None), Who("forged", scopes=None)]
KEYS = [Who(f"key-{scope.replace(':', '-')}", scopes=frozenset({scope})) for scope in sorted(ALL_SCOPES)]
CALLERS = [
    *NOBODY,
    *KEYS,
    Who("key-one-model", scopes=frozenset({"predict:ada/fruit"})),
    Who("admin-key-read", Role.ADMIN, frozenset({Scope.READ})),
    Who("viewer", Role.VIEWER),
    Who("member"),
    Who("browser", by_cookie=True),
    Who("boss", Role.ADMIN),
]


async def healthy() -> tuple[int, dict[str, object]]:
    """What health tells does not matter to who may ask."""
    return 200, {}


def routes_of(stage: Stage) -> list[Route]:
    """Every route that the application has beside what is mounted."""
    routers = [*(router for service in stage.services for router in service.routers), _own_routes(FastAPI(), stage.services, healthy)]
    found = []
    for router in routers:
        for each in router.routes:
            assert isinstance(each, APIRoute), f"{each!r} is no route whose action can be read here"
            action = declared(each)
            assert action is not None
            found += [Route(method, each.path, action, each.include_in_schema) for method in sorted(each.methods)]
    return found


@dataclass
class World:
    """A stage with accounts of every sort, and what they own."""

    stage: Stage
    other: Owned
    _count: Iterator[int] = field(default_factory=lambda: count(1))
    _owned: dict[str, Owned] = field(default_factory=dict)
    _clients: dict[str, TestClient] = field(default_factory=dict)

    def owned(self, username: str, role: Role = Role.MEMBER, description: str = "") -> Owned:
        """A ready model of this user, with a key and a session."""
        key = self.stage.key(username, role=role)
        name = f"fruit-{next(self._count)}"
        sent = form(name, app_zip(name), owner=username, description=description)
        taken = self.stage.http.post("/upload", **sent).json()
        while self.stage.version(taken["id"]).state != VersionState.READY:
            assert self.stage.step("builds")
        with self.stage.database.read() as session:
            model = session.scalars(select(ModelRow).where(ModelRow.owner == username, ModelRow.name == name)).one()
        session_id = self.stage.cookie(username).partition(".")[0]
        return Owned(username, name, taken["id"], taken["build_id"], model.label, key.id, session_id)

    def own(self, who: Who, route: Route) -> Owned:
        """What the caller has for this route to act on."""
        if not route.is_of_objects:
            return self.other
        found = self._owned.pop(who.name, None) or self.owned(who.name, who.role)
        if not route.line.spends:
            self._owned[who.name] = found
        return found

    def missing(self) -> Owned:
        """What nobody has."""
        return Owned(f"nobody-{next(self._count)}", "fruit", NO_ID, NO_ID, f"fruit-{NO_ID[-12:]}", NO_KEY, NO_ID)

    def client(self, who: Who, route: Route) -> TestClient:
        """A caller with a credential that was not spent yet."""
        found = self._clients.pop(who.name, None) or self._client(who)
        if not route.line.spends:
            self._clients[who.name] = found
        return found

    def _client(self, who: Who) -> TestClient:
        client = self.stage.client(cookie=self.stage.cookie(who.name)) if who.by_cookie else self.stage.client(self._token(who))
        client.headers["origin"] = ORIGIN
        if who.name == "forged":
            client.headers.update(
                dict.fromkeys(("x-modelyard-user", "x-user", "x-forwarded-user", "remote-user", "x-remote-user"), "owner")
            )
        return client

    def _token(self, who: Who) -> str | None:
        if who.name in {"anonymous", "forged"}:
            return None
        key = self.stage.key(who.name, ALL_SCOPES if who.scopes is None else who.scopes, who.role)
        with self.stage.database.write() as session:
            row = session.get_one(ApiKeyRow, key.id)
            if who.name == "disabled":
                session.get_one(AccountRow, row.account_id).state = AccountState.DISABLED
            if who.name == "revoked":
                row.revoked_at = self.stage.kernel.clock()
        return key.text

    def theirs(self) -> list[tuple[object, ...]]:
        """All that is kept of the other's models."""
        with self.stage.database.read() as session:
            rows = select(
                ModelRow.public, ModelRow.access_changed_at, ModelRow.deleted_at, VersionRow.state, VersionRow.since, ShareRow.username
            )
            joined = rows.join(VersionRow, VersionRow.model_id == ModelRow.id).outerjoin(ShareRow, ShareRow.model_id == ModelRow.id)
            key = session.get_one(ApiKeyRow, self.other.key_id)
            owners = session.execute(joined.where(ModelRow.owner == self.other.username).order_by(VersionRow.id)).all()
            return [tuple(row) for row in owners] + [(key.revoked_at,)]
