"""What a test asks of a server, whichever processes that is."""

from typing import Any

import httpx2


class Caller:
    """Uploads and calls models with the owner's key."""

    http: httpx2.Client

    def upload(self, owner: str, name: str, zip_bytes: bytes, *, wait_s: int = 300, key: str | None = None) -> httpx2.Response:
        """Upload as the guide does."""
        headers = {"prefer": f"wait={wait_s}"} if wait_s else {}
        if key:
            headers["idempotency-key"] = key
        return self.http.post(
            "/upload",
            data={"username": owner, "model_name": name},
            files={"file": (f"{name}.zip", zip_bytes, "application/zip")},
            headers=headers,
        )

    def ready(self, owner: str, name: str, zip_bytes: bytes) -> dict[str, Any]:
        """Upload, wait, and insist that it is ready."""
        answer = self.upload(owner, name, zip_bytes)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        assert body["status"] == "ready", self.http.get(body["log_url"]).text
        return body

    def predict(self, owner: str, name: str, text: str = "hello") -> httpx2.Response:
        """Call the model."""
        return self.http.post(f"/m/{owner}/{name}/predict", json={"input": text})
