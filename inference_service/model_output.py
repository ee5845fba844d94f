"""What a model's app printed, read from the files that its instance leaves, whether or not it runs."""

from pathlib import Path

from modelyard.domain.errors import NotFound
from modelyard.domain.ids import instance_name
from modelyard.runtime.output import FILE_BYTES, OutputFile
from modelyard.store import catalog
from modelyard.store.database import Database
from modelyard.web.access import Principal

_KEPT = frozenset("\n\t")


class ModelOutput:
    """Reads the output of models for their owners.

    Args:
        folder: Where the runtime keeps the output of its instances.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def last(self, caller: Principal, owner: str, name: str, lines: int) -> str:
        """The last lines that the serving version printed; empty where nothing serves, or nothing was printed.

        Raises:
            NotFound: There is no such model for this caller.
        """
        with self._database.read() as session:
            model = catalog.model_of(session, owner, name, caller.sees)
            if model is None:
                raise NotFound
            serving = catalog.serving_by_id(session, model.model_id)
        if serving is None:
            return ""
        printed = OutputFile(self._folder, instance_name(serving.version_id)).last(2 * FILE_BYTES)
        return "".join(_tame(printed).splitlines(keepends=True)[-lines:])


def _tame(printed: bytes) -> str:
    # An app prints what it likes: nothing of it may steer a reader's terminal. What is left splits at "\n" alone.
    return "".join(letter for letter in printed.decode("utf-8", "replace") if letter.isprintable() or letter in _KEPT)
