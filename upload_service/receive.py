"""Takes one upload in: checks the zip, reads what it is, and records it with its build in one transaction."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from modelyard.domain.accounts import Role
from modelyard.domain.errors import Invalid, NotFound
from modelyard.domain.ids import Digest, ModelName, Owner, new_id, parse_model_name, parse_owner
from modelyard.domain.plan import Plan
from modelyard.domain.states import VersionState
from modelyard.run.settings import QuotaSettings
from modelyard.store import accounts, audit, doorbell, idempotency
from modelyard.store.audit import Actor
from modelyard.store.blobs import Blobs, Staged
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.idempotency import LEASE_S, Claim, Idempotency
from modelyard.store.row import Json
from modelyard.store.tables import ModelRow, VersionRow
from modelyard.web.access import Principal
from upload_service import quotas, repository
from upload_service.archive import read_archive
from upload_service.detect import Ceilings, detect
from upload_service.multipart import Form

ROUTE = "POST /upload"
DESCRIPTION_LENGTH = 2000
CHECKS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Request:
    """Who uploads, as what the audit trail names them, and with which idempotency key."""

    caller: Principal
    actor: Actor
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The version and the build that an upload became; `duplicate`: the bytes were here before."""

    version_id: str
    build_id: str | None
    duplicate: bool


@dataclass(frozen=True, slots=True)
class _Upload:
    owner: Owner
    name: ModelName
    description: str
    plan: Plan

    def fingerprint(self, digest: Digest) -> str:
        meaning = f"{self.owner}\0{self.name}\0{self.description}\0{self.plan.model_dump_json()}\0{digest}"
        return hashlib.sha256(meaning.encode()).hexdigest()


class Receive:
    """Receives uploads.

    Args:
        admit: Raises where this machine may not run such bytes.
        runtime_name: The runtime that will start what is built.
        quota: What one account may have; what an administrator uploads is not counted.
        clock: Seconds since 1970.
        lease_s: Seconds that a request holds its idempotency key without a renewal.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        ceilings: Ceilings,
        admit: Callable[[Digest], None],
        runtime_name: str,
        quota: QuotaSettings,
        clock: Callable[[], float],
        lease_s: float = LEASE_S,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._ceilings = ceilings
        self._admit = admit
        self._checking = threading.Semaphore(CHECKS_AT_ONCE)
        self._runtime_name = runtime_name
        self._clock = clock
        self._quota = quota
        self._idempotency = Idempotency(database, lease_s)
        self.renew_every_s = lease_s / 3

    def claim(self, request: Request) -> Claim | None:
        """The right to do the work of the request's key; None where it has no key, or an answer is kept."""
        return self._idempotency.claim(request.caller.username, ROUTE, request.key) if request.key is not None else None

    def renew(self, claim: Claim) -> None:
        """Hold the claim while the body is still coming in."""
        self._idempotency.renew(claim)

    def release(self, claim: Claim) -> None:
        """Let the key go: the upload was refused."""
        self._idempotency.release(claim)

    def accept(self, request: Request, claim: Claim | None, form: Form, staged: Staged) -> Receipt:
        """Record the upload, or raise and leave nothing.

        Raises:
            Invalid: A field or the zip is refused.
            NotFound: The caller may not upload for this username.
            Conflict: The idempotency key was taken over; `name_too_similar`, nobody has this username and it reads like another one.
            Limited: The owner has as much as one may have.
        """
        upload = self._read(request, form, staged)
        fingerprint = upload.fingerprint(staged.digest)
        if claim is None and request.key is not None:
            return _receipt(self._idempotency.replay(request.caller.username, ROUTE, request.key, fingerprint))
        now = self._clock()
        with self._database.write() as session:
            self._open_account(session, request, upload.owner, now)
            receipt = self._record(session, request.caller, upload, staged, now)
            audit.append(session, request.actor, "upload", receipt.version_id, now)
            if claim is not None:
                idempotency.keep(session, claim, fingerprint, _kept(receipt))
        return receipt

    def _read(self, request: Request, form: Form, staged: Staged) -> _Upload:
        owner = _owner(form, request.caller)
        name = parse_model_name(_field(form, "model_name"))
        description = form.fields.get("description", "")
        if len(description) > DESCRIPTION_LENGTH:
            raise Invalid(
                "description_too_long",
                f"A description has at most {DESCRIPTION_LENGTH} characters.",
                "Shorten it.",
                errors=[{"field": "description", "message": "too long"}],
            )
        # Reading a hostile zip costs seconds of processor time at the most; a few at once leave the server its own.
        with self._checking, read_archive(staged.path) as archive:
            plan = detect(archive, self._ceilings)
        self._admit(staged.digest)
        return _Upload(owner, name, description, plan)

    def _open_account(self, session: Session, request: Request, owner: Owner, now: float) -> None:
        if request.caller.sees is not None:
            # The account may have been disabled while the bytes came in.
            if accounts.holder(session, owner) is None:
                raise NotFound
        elif not accounts.exists(session, owner):
            account_id = accounts.ensure(session, owner, now)
            audit.append(session, request.actor, "create_account", f"account:{account_id}", now)

    def _record(self, session: Session, caller: Principal, upload: _Upload, staged: Staged, now: float) -> Receipt:
        quotas.hold(session, upload.owner)
        model = repository.lock_model(session, upload.owner, upload.name, now)
        plan = upload.plan.model_dump(mode="json")
        known = repository.same_bytes(session, model.id, staged.digest, plan)
        if known is not None and known.state not in {VersionState.FAILED, VersionState.CANCELLED}:
            build = repository.newest_build(session, known.id)
            return Receipt(known.id, build.id if build else None, duplicate=True)
        if caller.role is not Role.ADMIN:
            quotas.check(session, self._quota, upload.owner, upload.name, staged.digest, staged.size_bytes)
        # Renamed inside the transaction, over what may be there: nobody can delete these bytes before the row that names them is seen.
        lock_key(session, staged.digest)
        self._blobs.keep(staged)
        if known is None:
            known = self._add_version(session, model, upload, staged, plan, now)
        else:
            repository.move(known, VersionState.RECEIVED, now)
        build = repository.add_build(session, known, now)
        ring_after_commit(session, doorbell.BUILDS)
        return Receipt(known.id, build.id, duplicate=False)

    def _add_version(self, session: Session, model: ModelRow, upload: _Upload, staged: Staged, plan: Json, now: float) -> VersionRow:
        model.newest += 1
        model.deleted_at = None
        version = VersionRow(
            id=new_id(),
            model_id=model.id,
            number=model.newest,
            description=upload.description,
            sha256=staged.digest,
            size_bytes=staged.size_bytes,
            plan=plan,
            state=VersionState.RECEIVED,
            since=now,
            runtime=self._runtime_name,
            created_at=now,
        )
        session.add(version)
        session.flush()
        return version


def _owner(form: Form, caller: Principal) -> Owner:
    """Whose upload it is: the caller's, where the form does not say; what it says must be the caller, unless an administrator says it."""
    if "username" not in form.fields or _field(form, "username") == caller.username:
        # An account's own name is good though it be reserved: the first administrator has such a one.
        return Owner(caller.username)
    owner = parse_owner(_field(form, "username"))
    if caller.sees not in {None, owner}:
        raise NotFound
    return owner


def _field(form: Form, name: str) -> str:
    value = form.fields.get(name, "").strip()
    if not value:
        raise Invalid(
            "form_invalid", f"The field {name} is missing.", f"Add it: curl -F {name}=...", errors=[{"field": name, "message": "missing"}]
        )
    return value


def _kept(receipt: Receipt) -> Json:
    return {"version_id": receipt.version_id, "build_id": receipt.build_id, "duplicate": receipt.duplicate}


def _receipt(kept: Json) -> Receipt:
    build_id = kept["build_id"]
    return Receipt(str(kept["version_id"]), str(build_id) if build_id else None, bool(kept["duplicate"]))
