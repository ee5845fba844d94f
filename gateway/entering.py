"""Lets browsers into models' own hosts where the keys that sign cookies are another process's: it is asked for each."""

from dataclasses import dataclass
from functools import partial

from anyio import from_thread

from gateway.services import Services
from modelyard.store.audit import Actor
from modelyard.web.entering import PATH

ROLE = "auth"


@dataclass(frozen=True, slots=True)
class RemoteEntrance:
    """Asks the auth role."""

    services: Services

    def enter(self, ticket: str, label: str, actor: Actor) -> str | None:
        """The cookie for the model of this label, where the ticket is good; called from a thread of the event loop's.

        Raises:
            Unavailable: `service_down`.
        """
        asked = {"ticket": ticket, "label": label, "address": actor.address}
        cookie = from_thread.run(partial(self.services.ask, ROLE, "POST", PATH, json=asked)).raise_for_status().json()["cookie"]
        return None if cookie is None else str(cookie)
