"""What tests of models' own pages share: uploads by program, and browsers that members signed in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from browsing import Site, patient
from playwright.sync_api import BrowserContext

from auth_service.sessions import Sessions


def owner_of(site: Site) -> httpx2.Client:
    """The owner as a program."""
    token = (site.running.data / "owner.token").read_text().strip()
    return httpx2.Client(base_url=site.url, headers={"authorization": f"Bearer {token}"}, timeout=400)


def deploy(site: Site, owner: str, name: str, zip_bytes: bytes) -> None:
    """Upload for this user, and wait until it is ready."""
    with owner_of(site) as http:
        words = {"username": owner, "model_name": name}
        told = http.post(
            "/upload", data=words, files={"file": ("app.zip", zip_bytes, "application/zip")}, headers={"prefer": "wait=300"}
        ).json()
        assert told.get("status") == "ready", http.get(told["log_url"]).text if "log_url" in told else told


@contextmanager
def signed_in(site: Site, username: str) -> Iterator[BrowserContext]:
    """A browser that a one-time link has signed in as this user, who exists."""
    ticket = Sessions(site.running.database, 3600.0, time.time).new_ticket(username)
    context = patient(site.browser.new_context())
    page = context.new_page()
    page.goto(f"{site.url}/first/{ticket}")
    page.close()
    yield context
    context.close()
