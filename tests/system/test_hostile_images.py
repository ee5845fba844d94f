"""Images that nobody vouches for: bombs and mutations are refused or answered, by a process that lives on within its memory."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from parts.checkpoints import MOBILENET, write_clip, write_mobilenet
from parts.model_apps import RunningApp, pulled, running
from parts.pictures import bombs, encoded, scene, turned

from modelyard.domain.plan import GIB, MIB

LIMITS = {"mobilenet": 512 * MIB, "clip": 2 * GIB}
AT_ONCE = 8
HONEST = encoded(scene())
ANSWERED, REFUSED = {200}, {413, 415, 422}


@pytest.fixture(scope="module", params=["mobilenet", "clip"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    base, name = tmp_path_factory.mktemp("hostile"), request.param
    if name == "mobilenet" and MOBILENET.is_dir():
        checkpoint = MOBILENET  # as large as it is in earnest
    else:
        checkpoint = {"mobilenet": write_mobilenet, "clip": write_clip}[name](base / "checkpoint")
    with running(name, pulled(base / "weights", name, checkpoint), {"MODELYARD_CPUS": "2"}) as started:
        yield started


def name_of(app: RunningApp) -> str:
    return str(app.http.get("/health").json()["model"])


def predict(app: RunningApp, content: bytes) -> tuple[int, str]:
    """The status of the answer, and its code where it is a problem."""
    answer = app.http.post("/predict", content=content, params={"labels": "a,b"}, headers={"content-type": "application/octet-stream"})
    return answer.status_code, "" if answer.status_code == 200 else answer.json()["code"]


def lives_on(app: RunningApp) -> None:
    """The process that was started still answers, and never had more in memory than its limit."""
    assert app.alive()
    assert predict(app, HONEST)[0] == 200
    assert app.memory_bytes() < LIMITS[name_of(app)] * 0.9, f"{app.memory_bytes() / MIB:.0f} MiB"


def test_forty_bombs_are_refused_or_answered(app: RunningApp) -> None:
    sent = bombs()
    assert len(sent) >= 40
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = dict(zip(sent, pool.map(lambda content: predict(app, content), sent.values()), strict=True))
    assert {name: answer for name, answer in told.items() if answer[0] not in ANSWERED | REFUSED} == {}
    honest = {"gif of many frames", "webp of many frames", "real png of 9000 x 9000, kind 0"}
    assert {name for name in honest & set(told) if told[name][0] == 200} >= {"gif of many frames", "webp of many frames"}
    assert all(told[f"png of {side} pixels a side"] == (413, "too_many_pixels") for side in (8_000, 65_535, 1 << 20))
    assert not Path("/tmp/modelyard-canary").exists()
    lives_on(app)


@pytest.mark.slow
def test_the_largest_that_is_allowed_many_times_at_once_stays_within_the_memory(app: RunningApp) -> None:
    largest = [encoded(scene(6_600, 6_000), "JPEG", quality=60), encoded(scene(5_000, 4_400), "PNG", compress_level=1), HONEST]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = Counter(pool.map(lambda number: predict(app, largest[number % 3]), range(24)))
    assert set(told) == {(200, "")}, told
    lives_on(app)


def test_mutated_images_are_refused_or_answered(app: RunningApp, scaled: Callable[[int], int]) -> None:
    chance = random.Random(20)
    kinds = [encoded(scene(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")]
    seeds = [*kinds, turned(scene(), 6), encoded(scene().convert("CMYK"), "JPEG"), encoded(scene().convert("P"), "PNG")]
    sent = [_mutated(chance.choice(seeds), chance) for _ in range(scaled(1000))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = Counter(pool.map(lambda content: predict(app, content)[0], sent))
    assert set(told) <= ANSWERED | REFUSED, told
    lives_on(app)


def _mutated(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or the end cut off."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + 4] = chance.randbytes(4)
            case 2:
                del changed[at : at + chance.randint(1, 16)]
            case 3:
                changed[at:at] = changed[at : at + chance.randint(1, 64)]
            case _:
                changed[at : at + 2] = b"\xff\xff"
        if len(changed) < 16:
            break
    return bytes(changed[: chance.randint(8, len(changed))] if chance.random() < 0.2 else changed)
