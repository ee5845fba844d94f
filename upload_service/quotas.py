"""What one account may have at most; asked in the transaction that admits an upload."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from modelyard.domain.errors import Limited
from modelyard.domain.plan import MIB
from modelyard.domain.states import BuildState, VersionState
from modelyard.run.settings import QuotaSettings
from modelyard.store.database import lock_key
from modelyard.store.tables import BuildRow, ModelRow, VersionRow
from upload_service.repository import GONE

BUILDS_RETRY_S = 10
_UNDER_WAY = (BuildState.QUEUED, BuildState.RUNNING)


def hold(session: Session, owner: str) -> None:
    """Hold what the owner has until the end of the transaction: two uploads at once count each other."""
    lock_key(session, f"quota:{owner}")


def check(session: Session, quotas: QuotaSettings, owner: str, name: str, sha256: str, size_bytes: int) -> None:
    """Return where the owner may have this upload too; the caller holds the owner.

    Raises:
        Limited: `quota_builds`, `quota_models` or `quota_disk`.
    """
    builds = _builds(session, owner)
    if builds >= quotas.builds_at_once:
        raise Limited(
            "quota_builds",
            f"{builds} builds of {owner} wait or run, and the setting quotas.builds_at_once allows {quotas.builds_at_once}.",
            "Wait until one of them has ended.",
            retry_after_s=BUILDS_RETRY_S,
        )
    others = _other_models(session, owner, name)
    if others >= quotas.models:
        raise Limited(
            "quota_models",
            f"{owner} has {others} models, and the setting quotas.models allows {quotas.models}.",
            f"Delete a model that is not needed: modelyard delete {owner}/NAME",
        )
    kept_bytes = _other_bytes(session, owner, sha256)
    if kept_bytes + size_bytes > quotas.disk_bytes:
        raise Limited(
            "quota_disk",
            f"With this zip {owner} would keep {_mib(kept_bytes + size_bytes)}, and the setting quotas.disk_bytes allows "
            f"{_mib(quotas.disk_bytes)}; zips of deleted versions count until they are purged.",
            f"Delete versions that are not needed, with their zips: modelyard delete {owner}/NAME --version N --purge",
        )


def _builds(session: Session, owner: str) -> int:
    builds = select(func.count()).select_from(BuildRow).join(VersionRow, VersionRow.id == BuildRow.version_id)
    return session.scalar(builds.join(ModelRow).where(ModelRow.owner == owner, BuildRow.state.in_(_UNDER_WAY))) or 0


def _other_models(session: Session, owner: str, name: str) -> int:
    names = select(func.count(ModelRow.id.distinct())).join(VersionRow, VersionRow.model_id == ModelRow.id)
    return session.scalar(names.where(ModelRow.owner == owner, ModelRow.name != name, VersionRow.state.not_in(GONE))) or 0


def _other_bytes(session: Session, owner: str, sha256: str) -> int:
    # The same bytes lie on the disk once, however many versions they are.
    kept = (VersionRow.state != VersionState.DELETED) | ~VersionRow.purge
    zips = select(VersionRow.sha256, VersionRow.size_bytes).join(ModelRow).where(ModelRow.owner == owner, VersionRow.sha256 != sha256, kept)
    return int(session.scalar(select(func.sum(zips.distinct().subquery().c.size_bytes))) or 0)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB"
