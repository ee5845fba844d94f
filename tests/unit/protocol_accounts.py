"""The part of the small server that speaks of accounts: log-ins whose refresh tokens are good once, keys, users, sharing, events."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

KEY = "my_test_key"
AT = "2026-01-02T03:04:05Z"
PASSWORD = "four quiet herons wade"

Reply = tuple[int, Any]


def event(n: int) -> dict[str, Any]:
    data = {"username": "ada", "model_name": "fruit", "version": n}
    return {"cursor": f"c{n}", "id": f"e{n}", "time": AT, "event": "model.uploaded", "data": data}


@dataclass
class Accounts:
    """What the server knows of accounts; a refresh token that comes twice ends the log-in, without the real server's grace."""

    expires_in: float = 600.0
    generation: int = 0
    """Of the tokens that are good now; 0: nobody is logged in."""
    refused: set[str] = field(default_factory=set)
    """Access tokens that are refused although they are the newest."""
    trades: int = 0
    keys: list[dict[str, Any]] = field(default_factory=list)
    users: list[dict[str, Any]] = field(default_factory=lambda: [{"username": "ada", "role": "admin", "state": "active", "created_at": AT}])
    access: dict[str, Any] = field(default_factory=lambda: {"public": False, "users": ["bob"]})
    events: list[dict[str, Any]] = field(default_factory=lambda: [event(1), event(2), event(3)])
    page: int = 100
    lock: threading.Lock = field(default_factory=threading.Lock)

    def knows(self, authorization: str | None) -> bool:
        token = (authorization or "").removeprefix("Bearer ")
        return token == KEY or (self.generation > 0 and token == f"access-{self.generation}" and token not in self.refused)

    def trade(self, body: bytes) -> Reply:
        form = dict(parse_qsl(body.decode()))
        with self.lock:
            self.trades += 1
            if form["grant_type"] == "password" and form["password"] != PASSWORD:
                return _problem(401, "password_wrong")
            if form["grant_type"] == "refresh_token" and form["refresh_token"] != f"refresh-{self.generation}":
                self.generation = 0
                return _problem(401, "log_in_ended")
            self.generation += 1
            pair = {"access_token": f"access-{self.generation}", "refresh_token": f"refresh-{self.generation}"}
            return 200, pair | {"token_type": "Bearer", "expires_in": self.expires_in}

    def answer(self, method: str, words: list[str], body: bytes) -> Reply | None:
        told = json.loads(body) if body.startswith(b"{") else {}
        match words:
            case ["auth", "keys", *rest]:
                return self._key(method, rest, told)
            case ["auth", "users", *rest]:
                return self._user(method, rest, told)
            case ["models", _, _, what]:
                return self._model(method, what, told)
            case ["auth", "me"]:
                return 200, {"username": "ada", "role": "member", "scopes": ["models:read"]}
            case ["auth", "logout"]:
                self.generation = 0
                return 200, {}
        return None

    def _key(self, method: str, rest: list[str], told: dict[str, Any]) -> Reply | None:
        match method, rest:
            case "GET", []:
                return 200, {"keys": self.keys}
            case "POST", []:
                made = {"id": f"key{len(self.keys)}", "scopes": ["predict"], "created_at": AT} | told
                self.keys.append(made)
                return 201, made | {"key": "my_new_key"}
            case "DELETE", [key_id]:
                self.keys = [each for each in self.keys if each["id"] != key_id]
                return 200, {"id": key_id}
        return None

    def _model(self, method: str, what: str, told: dict[str, Any]) -> Reply | None:
        if (method, what) == ("GET", "logs"):
            return 200, "one\ntwo \x1b[2J\n"
        if what != "access":
            return None
        if method == "PUT":
            self.access = told
        return 200, self.access

    def _user(self, method: str, rest: list[str], told: dict[str, Any]) -> Reply | None:
        match method, rest:
            case "GET", []:
                return 200, {"users": self.users}
            case "POST", []:
                made = {"state": "active", "created_at": AT} | {name: value for name, value in told.items() if name != "password"}
                self.users.append(made)
                return 201, made
            case "PATCH", [name]:
                found = next(each for each in self.users if each["username"] == name)
                found.update(told)
                return 200, found
            case "POST", [name, "invite"]:
                return 201, {"url": f"http://localhost/signup?invite={name}", "expires_at": AT}
            case "PUT", [_, "password"]:
                return 200, {}
        return None


def _problem(status: int, code: str) -> Reply:
    return status, {"title": code, "status": status, "detail": f"It is {code}.", "code": code, "mend": "Log in."}
