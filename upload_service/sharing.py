"""Who may call a model beside its owner: told by the owner, and in force at the next call."""

from collections.abc import Callable

from modelyard.domain.errors import NotFound
from modelyard.store import audit, doorbell
from modelyard.store.audit import Actor
from modelyard.store.database import Database, ring_after_commit
from modelyard.web.access import Principal
from upload_service import repository, views
from upload_service.schemas import Access


class Sharing:
    """Shows and changes who may call.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def of(self, caller: Principal, owner: str, name: str) -> Access:
        """Who may call the model.

        Raises:
            NotFound: There is none for this caller.
        """
        with self._database.read() as session:
            model = repository.find_model(session, owner, name, caller.sees)
            if model is None:
                raise NotFound
            return views.access(model, repository.users_of(session, model.id))

    def change(self, caller: Principal, owner: str, name: str, access: Access, actor: Actor) -> Access:
        """Let these call the model, and nobody else beside its owner and administrators; the runner writes its route anew.

        A name is taken whether or not somebody has it: nobody learns from a model of their own which accounts there are.

        Raises:
            NotFound: There is none for this caller.
        """
        with self._database.write() as session:
            model = repository.find_model(session, owner, name, caller.sees, lock=True)
            if model is None:
                raise NotFound
            now = self._clock()
            repository.share(session, model, public=access.public, users=access.users, now=now)
            told = views.access(model, repository.users_of(session, model.id))
            audit.append(session, actor, "share", model.id, now, "public" if told.public else f"{len(told.users)} users")
            ring_after_commit(session, doorbell.ACCESS)
            return told
