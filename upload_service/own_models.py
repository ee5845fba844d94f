"""Serves the models of our own as the platform's: each is uploaded as any other app is, once its weights are here."""

from collections.abc import Collection, Mapping

import structlog

from modelyard.domain.accounts import Role
from modelyard.domain.ids import PLATFORM
from modelyard.domain.weights import ENTRIES
from modelyard.run.resources import builtin_bytes
from modelyard.store.audit import Actor
from modelyard.store.blobs import Blobs
from modelyard.web.access import Principal
from modelyard.weights.folder import WeightsFolder
from upload_service.multipart import Form
from upload_service.receive import Receive, Request

log = structlog.get_logger(__name__)

_OURSELVES = Principal(PLATFORM, Role.ADMIN)


class OwnModels:
    """Uploads them; the same bytes again change nothing, those of another release become a new version.

    Args:
        names: Which of them are served here.
    """

    def __init__(self, receive: Receive, blobs: Blobs, weights: WeightsFolder, names: Collection[str]) -> None:
        self._receive = receive
        self._blobs = blobs
        self._weights = weights
        self._waiting = [name for name in names if name in ENTRIES]

    def step(self) -> bool:
        """Upload those whose weights have come; there is never more to do at once."""
        for name in [name for name in self._waiting if self._weights.kept(name)]:
            self._upload(name)
            self._waiting.remove(name)
        return False

    def _upload(self, name: str) -> None:
        fields: Mapping[str, str] = {"username": PLATFORM, "model_name": name, "description": ENTRIES[name].about}
        staged = self._blobs.stage()
        try:
            staged.write(builtin_bytes(name))
            staged.finish()
            request = Request(_OURSELVES, Actor(PLATFORM))
            receipt = self._receive.accept(request, None, Form(dict(fields), f"{name}.zip"), staged)
        finally:
            staged.discard()
        log.info("built-in model", model=name, version=receipt.version_id, known=receipt.duplicate)
