"""Judges a history: what callers were told, against what the store, the topic, the folders and the processes hold afterwards."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from history.facts import Found, History, Sent, Version

ACCEPTED = 202
READY, FAILED = "ready", "failed"
UPLOADED, BUILD_FAILED = "model.uploaded", "model.build_failed"

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Kind(StrEnum):
    """What may be wrong."""

    LOST = "an upload has no version"
    UNREADY = "an upload is not ready"
    DOUBLED = "an upload happened more than once"
    UNASKED = "a version that nobody uploaded"
    UNTRUE_ANSWER = "a caller was told what is not so"
    UNTOLD = "a state without its event"
    TOLD_TWICE = "a state with more than one event"
    UNTRUE = "an event without its state"
    UNSENT = "an event is not on the topic"
    UNWRITTEN = "a record on the topic that no row tells of"
    DISORDERED = "a key's events are on the topic in another order"
    NO_EFFECT = "an event without its effect"
    EFFECT_DOUBLED = "an event with its effect more than once"
    GIVEN_UP = "an event that a consumer gave up"
    UNSERVED = "another version than the newest ready one is wanted"
    ORPHAN = "something that no row names"
    MISSING = "something that a row names is not there"
    UNNOTED = "an act that the audit trail does not tell of"
    UNCHAINED = "the audit trail is not what was written"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be.

    Args:
        subject: A key, a digest, or an id, as `story` takes it.
    """

    kind: Kind
    subject: str


def judge(history: History, found: Found) -> list[Fault]:
    """Every fault; none where nothing was lost, doubled or left behind."""
    checks: tuple[Callable[[History, Found], Iterator[Fault]], ...] = (
        _uploads,
        _acts,
        _answers,
        _builds,
        _events,
        _topic,
        _effects,
        _serving,
        _folders,
    )
    return [fault for check in checks for fault in check(history, found)]


def _uploads(history: History, found: Found) -> Iterator[Fault]:
    """Each key is one version with its bytes, whatever was answered; each answer names it, and it is ready."""
    of_upload = _grouped(found.versions, lambda each: (each.model, each.sha256))
    for key, attempts in _grouped(history.attempts, lambda each: each.key).items():
        mine = of_upload.get((attempts[0].model, attempts[0].sha256), [])
        named = {each.told for each in attempts if each.status == ACCEPTED}
        if not mine or not named:
            yield Fault(Kind.LOST, key)
        elif len(mine) > 1 or len(named) > 1:
            yield Fault(Kind.DOUBLED, key)
        elif named != {mine[0].id}:
            yield Fault(Kind.UNTRUE_ANSWER, key)
        elif mine[0].state != READY:
            yield Fault(Kind.UNREADY, key)
    asked = {(each.model, each.sha256) for each in history.attempts}
    yield from (Fault(Kind.UNASKED, each.id) for each in found.versions if (each.model, each.sha256) not in asked)


def _acts(history: History, found: Found) -> Iterator[Fault]:
    """An upload was done as often as it was asked for by different keys, and the trail that says so is whole."""
    asked = {(each.key, each.model, each.sha256) for each in history.attempts}
    keys = Counter((model, sha256) for _, model, sha256 in asked)
    for version in found.versions:
        acts, asked_for = found.acts.get(version.id, 0), keys[version.model, version.sha256]
        if acts != asked_for:
            yield Fault(Kind.DOUBLED if acts > asked_for else Kind.UNNOTED, version.id)
    if found.flaw:
        yield Fault(Kind.UNCHAINED, found.flaw)


def _answers(history: History, found: Found) -> Iterator[Fault]:
    """What answered a call had been uploaded under that model's name."""
    del found
    uploaded = {(each.model, each.key) for each in history.attempts}
    yield from (Fault(Kind.UNTRUE_ANSWER, key) for model, key in history.answers if (model, key) not in uploaded)


def _builds(history: History, found: Found) -> Iterator[Fault]:
    """Each end of a build was told of once, and nothing else was."""
    del history
    told = Counter((each.type, each.version_id) for each in found.events if each.type in {UPLOADED, BUILD_FAILED})
    true = Counter((UPLOADED, each.id) for each in found.versions if each.state == READY)
    true += Counter((BUILD_FAILED, each.version_id) for each in found.builds if each.state == FAILED)
    for each in true | told:
        if told[each] < true[each]:
            yield Fault(Kind.UNTOLD, each[1])
        elif told[each] > true[each]:
            yield Fault(Kind.TOLD_TWICE if true[each] else Kind.UNTRUE, each[1])


def _events(history: History, found: Found) -> Iterator[Fault]:
    """Each event is of a version that there is."""
    del history
    there = {each.id for each in found.versions}
    yield from (Fault(Kind.UNTRUE, each.version_id) for each in found.events if each.version_id not in there)


def _topic(history: History, found: Found) -> Iterator[Fault]:
    """Every event is on the topic, none that is not written, and first seen in the order in which they were written."""
    del history
    written = {each.id: each for each in found.events}
    first: dict[str, Sent] = {}
    for record in sorted(found.records, key=lambda each: (each.partition, each.offset)):
        first.setdefault(record.event_id, record)
    yield from (Fault(Kind.UNSENT, each) for each in written if each not in first)
    yield from (Fault(Kind.UNWRITTEN, each) for each in first if each not in written)
    seen = [record for event_id, record in first.items() if event_id in written]
    for key, records in _grouped(seen, lambda each: each.key).items():
        numbers = [written[each.event_id].seq for each in records]
        if numbers != sorted(numbers) or len({each.partition for each in records}) > 1:
            yield Fault(Kind.DISORDERED, key)


def _effects(history: History, found: Found) -> Iterator[Fault]:
    """Every event had its effect on the counting consumer once."""
    del history
    for event in found.events:
        if found.effects.get(event.id, 0) == 0:
            yield Fault(Kind.NO_EFFECT, event.id)
    yield from (Fault(Kind.GIVEN_UP, each) for each in sorted(found.given_up))
    yield from (Fault(Kind.EFFECT_DOUBLED, each) for each, count in found.effects.items() if count > 1)


def _serving(history: History, found: Found) -> Iterator[Fault]:
    """Of each model the newest ready version may run, and no other; what is said to run does, and nothing else."""
    del history
    ready = [each for each in found.versions if each.state == READY]
    newest = {max(each, key=lambda one: one.number).id for each in _grouped(ready, lambda one: one.model_id).values()}
    yield from (Fault(Kind.UNSERVED, each) for each in sorted(newest ^ found.wanted))
    yield from (Fault(Kind.ORPHAN, each) for each in sorted(found.processes - found.running))
    yield from (Fault(Kind.MISSING, each) for each in sorted(found.running - found.processes))


def _folders(history: History, found: Found) -> Iterator[Fault]:
    """Zips, code and environments are those that rows name."""
    del history
    ready = [each for each in found.versions if each.state == READY]
    named = (
        (found.blobs, {each.sha256 for each in found.versions}, {each.sha256 for each in found.versions}),
        (found.apps, {each.id for each in ready}, {each.id for each in ready}),
        (found.environments, {each.reference for each in ready}, {each.reference for each in found.versions}),
    )
    for there, needed, allowed in named:
        yield from (Fault(Kind.MISSING, str(each)) for each in needed - there)
        yield from (Fault(Kind.ORPHAN, each) for each in there - allowed)
    yield from (Fault(Kind.ORPHAN, each) for each in sorted(found.left))


def story(history: History, found: Found, subject: str) -> str:
    """All that is known of a key, a digest, a version, a model or an event: what was answered, and what is there."""
    versions = _versions_of(history, found, subject)
    ids, digests = {each.id for each in versions}, {each.sha256 for each in versions}
    attempts = [each for each in history.attempts if subject in {each.key, each.sha256, each.told} or each.sha256 in digests]
    events = [each for each in found.events if each.version_id in ids or each.id == subject]
    event_ids = {each.id for each in events} | {subject}
    times = [each.at for each in attempts]
    kills = [each for each in history.kills if times and min(times) <= each.at <= max(times) + AFTER_S]
    done = sorted([*attempts, *kills], key=lambda each: each.at)
    rows = [*versions, *(each for each in found.builds if each.version_id in ids), *events]
    records = [each for each in found.records if each.event_id in event_ids]
    effects = [f"effect of {each}: {found.effects[each]} times" for each in sorted(event_ids) if each in found.effects]
    return "\n".join(f"  {each}" for each in [*done, *rows, *records, *effects])


AFTER_S = 60.0
"""As long after an upload's last answer its build may be what a kill met."""


def _versions_of(history: History, found: Found, subject: str) -> list[Version]:
    uploads = {(each.model, each.sha256) for each in history.attempts if each.key == subject}
    of_events = {each.version_id for each in found.events if subject in {each.id, each.key}}
    return [
        each
        for each in found.versions
        if subject in {each.id, each.sha256, each.model_id} or (each.model, each.sha256) in uploads or each.id in of_events
    ]


def _grouped(them: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for each in them:
        groups[by(each)].append(each)
    return dict(groups)
