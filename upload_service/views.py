"""Shows rows as the bodies that callers see."""

from datetime import UTC, datetime

from modelyard.domain.plan import Plan
from modelyard.domain.states import BuildState, VersionState
from modelyard.store.tables import ModelRow
from upload_service.builds import STEPS
from upload_service.repository import Versioned, docker_image
from upload_service.schemas import Access, Build, Model, Step, Upload


def when(seconds: float) -> datetime:
    """The time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def upload(found: Versioned, serving: int | None, *, duplicate: bool | None = None) -> Upload:
    """A version.

    Args:
        serving: The number of the model's version that serves.
    """
    model, version, build = found.model, found.version, found.build
    return Upload(
        id=version.id,
        username=model.owner,
        model_name=model.name,
        description=version.description,
        version=version.number,
        status=version.state,
        docker_image=docker_image(model, version, serves=version.number == serving),
        docker_container_id=version.docker_container_id if version.state == VersionState.READY else None,
        runtime=version.runtime,
        sha256=version.sha256,
        created_at=when(version.created_at),
        since=when(version.since),
        url=call_path(found),
        build_id=build.id if build else None,
        log_url=f"/builds/{build.id}/log" if build else None,
        reason=version.reason,
        message=version.message,
        mend=version.mend,
        duplicate=duplicate,
    )


def access(row: ModelRow, users: list[str]) -> Access:
    """Who may call a model."""
    return Access(public=row.public, users=users)


def model(versions: list[Versioned], serving: int | None, state: str, shared: Access) -> Model:
    """A model by its versions, the newest first."""
    plan = Plan.model_validate(versions[0].version.plan)
    return Model(
        **upload(versions[0], serving).model_dump(),
        versions=[upload(each, serving) for each in versions],
        serving=serving,
        state=state,
        found=plan.summary,
        access=shared,
        settings={
            "limits": plan.limits.model_dump(),
            "idle": plan.idle.model_dump(),
            "health": plan.health,
            "weights": list(plan.weights),
            "notes": list(plan.notes),
        },
    )


def build(found: Versioned) -> Build:
    """A build; its `status` is `queued`, `running`, `succeeded`, `failed` or `cancelled`."""
    row, version = found.build, found.version
    if row is None:
        raise LookupError(version.id)
    failed = row.state == BuildState.FAILED
    return Build(
        id=row.id,
        upload_id=version.id,
        username=found.model.owner,
        model_name=found.model.name,
        version=version.number,
        status=row.state,
        step=row.step,
        attempts=row.attempts,
        since=when(row.since),
        reason=row.reason,
        message=version.message if failed else None,
        mend=version.mend if failed else None,
        steps=[Step(name=name, seconds=_seconds(row.steps.get(name))) for name in STEPS],
        log_url=f"/builds/{row.id}/log",
        url=call_path(found),
    )


def call_path(found: Versioned) -> str:
    """Where the model is called."""
    return f"/m/{found.model.owner}/{found.model.name}/"


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
