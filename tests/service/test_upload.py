"""Uploads over HTTP: what is taken in, what is refused, and that a refusal leaves nothing behind."""

import hashlib
import re
from collections.abc import Callable, Iterator

import httpx2
import pytest
from stage import Stage, app_zip, form, in_thread, until, zipped

from modelyard.store.tables import AuditRow, BuildRow, ModelRow, OutboxRow, VersionRow


def test_first(stage: Stage) -> None:
    taken = stage.upload()
    print(taken.status_code, taken.json(), dict(taken.headers))
    assert stage.step("builds")
    print(stage.http.get("/models/ada").json(), stage.events())
    print(stage.delete(f"/models/{taken.json()['id']}").json())
    with stage.live() as url:
        print(httpx2.get(url + "/health").json())
    assert 0
