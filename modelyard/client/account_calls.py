"""The calls about accounts, keys and log-ins, one method each."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from modelyard.client.account_answers import Invitation, Key, Me, NewKey, Tokens, User
from modelyard.client.bearer import Renewing
from modelyard.client.connection import Connection


class AccountCalls(Connection):
    """The account that the token speaks for, and for administrators all others."""

    def log_in(self, username: str, password: str) -> Tokens:
        """Log in by password; from then on this client calls as that user, and renews its token in time.

        Example:
            ```python
            client = Client("http://127.0.0.1:8080")
            client.log_in("ada", "four quiet herons wade")
            ```
        """
        tokens = self._trade({"grant_type": "password", "username": username, "password": password})
        self._bearer.source = Renewing(tokens, self.refresh)
        return tokens

    def refresh(self, refresh_token: str) -> Tokens:
        """Trade a refresh token for new tokens; it is good once, and its log-in ends where somebody uses it again.

        Example:
            ```python
            tokens = client.refresh(tokens.refresh_token)
            ```
        """
        return self._trade({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def log_out(self, access_token: str | None = None) -> None:
        """End a log-in, everywhere.

        Args:
            access_token: One of its tokens; the one in use where it is not said.

        Example:
            ```python
            client.log_out()
            ```
        """
        headers = {"Authorization": f"Bearer {access_token}"}
        self._call("POST", "/auth/logout", **({"headers": headers, "auth": None} if access_token else {}))

    def me(self) -> Me:
        """Whom the token speaks for.

        Example:
            ```python
            print(client.me().username)
            ```
        """
        return Me.model_validate_json(self._call("GET", "/auth/me").content)

    def keys(self, username: str | None = None) -> list[Key]:
        """An account's API keys, without their secrets.

        Args:
            username: Whose, for administrators; the caller's where it is not said.

        Example:
            ```python
            unused = [key for key in client.keys() if key.last_used_at is None]
            ```
        """
        return [
            Key.model_validate(each)
            for each in self._list(f"/auth/keys?{urlencode({'username': username})}" if username else "/auth/keys", "keys")
        ]

    def create_key(self, name: str, scopes: Sequence[str] = (), expires_in_s: float | None = None) -> NewKey:
        """A new API key; its text is in the answer, and nowhere else ever after.

        Args:
            name: What it is for, for people.
            scopes: What it is good for, such as `predict:ada/fruit`; models and their calls where none is named.
            expires_in_s: Seconds after which it ends; None: when it is revoked.

        Example:
            ```python
            key = client.create_key("camera", scopes=["predict:ada/fruit"], expires_in_s=30 * 86400).key
            ```
        """
        asked: dict[str, Any] = {"name": name}
        if scopes:
            asked["scopes"] = list(scopes)
        if expires_in_s is not None:
            asked["expires_in_s"] = expires_in_s
        return NewKey.model_validate_json(self._call("POST", "/auth/keys", json=asked).content)

    def revoke_key(self, key_id: str) -> None:
        """End a key; within five seconds it is refused everywhere.

        Example:
            ```python
            client.revoke_key(key.id)
            ```
        """
        self._call("DELETE", f"/auth/keys/{quote(key_id, safe='')}")

    def users(self) -> list[User]:
        """All accounts; for administrators.

        Example:
            ```python
            administrators = [user.username for user in client.users() if user.role == "admin"]
            ```
        """
        return [User.model_validate(each) for each in self._list("/auth/users", "users")]

    def create_user(self, username: str, password: str | None = None, role: str = "member") -> User:
        """A new account; without a password nobody can log in until one is set or an invitation is taken; for administrators.

        Example:
            ```python
            client.create_user("ada", "four quiet herons wade", role="member")
            ```
        """
        asked = {"username": username, "role": role} | ({} if password is None else {"password": password})
        return User.model_validate_json(self._call("POST", "/auth/users", json=asked).content)

    def invite(self, username: str) -> Invitation:
        """A one-time link with which somebody takes an account and chooses its password; for administrators.

        Example:
            ```python
            print(client.invite("ada").url)
            ```
        """
        return Invitation.model_validate_json(self._call("POST", f"{_user_path(username)}/invite").content)

    def set_user(self, username: str, *, role: str | None = None, state: str | None = None) -> User:
        """Change an account's role, or its state (active, disabled); all that was given out to it ends; for administrators.

        Example:
            ```python
            client.set_user("ada", state="disabled")
            ```
        """
        asked = {name: value for name, value in {"role": role, "state": state}.items() if value is not None}
        return User.model_validate_json(self._call("PATCH", _user_path(username), json=asked).content)

    def set_password(self, username: str, password: str) -> None:
        """Give an account another password; all its log-ins end; for administrators.

        Example:
            ```python
            client.set_password("ada", "four quiet herons wade")
            ```
        """
        self._call("PUT", f"{_user_path(username)}/password", json={"password": password})

    def _trade(self, form: dict[str, str]) -> Tokens:
        # Without the token in use: it may be the one that has ended.
        return Tokens.model_validate_json(self._call("POST", "/auth/token", data=form, auth=None).content)


def _user_path(username: str) -> str:
    return f"/auth/users/{quote(username, safe='')}"
