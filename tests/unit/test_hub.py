"""What a hub sends is resumed where it was cut off, and is what the hub says it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from parts.hub import COMMIT, LoopbackHub, serving

from modelyard.domain.errors import Invalid, Unavailable
from modelyard.weights import hub as hubs
from modelyard.weights.hub import Hub

BIG = bytes(range(256)) * 8192
SMALL = b'{"model_type": "mobilenet_v2"}'
REPO = "google/mobilenet"


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """As many tries as ever, without the pauses between them: those are the library's to test."""
    with stamina.set_testing(True, attempts=hubs.TRIES, cap=True):
        yield


@pytest.fixture
def loopback() -> Iterator[LoopbackHub]:
    with serving(LoopbackHub({f"{REPO}/model.safetensors": BIG, f"{REPO}/config.json": SMALL, "old/mobilenet/config.json": b"?"})) as hub:
        yield hub


@pytest.fixture
def hub(loopback: LoopbackHub) -> Iterator[Hub]:
    made = Hub(loopback.url, silent_s=10)
    yield made
    made.close()


def fetch(hub: Hub, file: str, target: Path, repo: str = REPO) -> list[tuple[int, int]]:
    """Fetch it, and return what its progress was told."""
    told: list[tuple[int, int]] = []
    hub.fetch(hub.describe(repo, "main", file), target, lambda done, total: told.append((done, total)))
    return told


@pytest.mark.parametrize(("file", "content"), [("model.safetensors", BIG), ("config.json", SMALL)])
def test_a_file_comes_whole_with_its_commit(hub: Hub, tmp_path: Path, file: str, content: bytes) -> None:
    assert hub.describe(REPO, "main", file).commit == COMMIT
    told = fetch(hub, file, tmp_path / file)
    assert (tmp_path / file).read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_name_that_has_changed_leads_to_the_new_one(hub: Hub) -> None:
    assert hub.describe("old/mobilenet", "main", "config.json").size == len(SMALL)


def test_what_was_cut_off_goes_on_where_it_ended(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    loopback.cut_after = 1_000_000
    fetch(hub, "model.safetensors", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG
    ranges = [ranged for method, path, ranged in loopback.asked if method == "GET" and path.startswith("/store/")]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert ranges[1] != "bytes=0-"


def test_another_process_goes_on_as_well(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "m.part").write_bytes(BIG[:1_500_000])
    assert fetch(hub, "model.safetensors", tmp_path / "m")[0][0] > 1_500_000
    assert (tmp_path / "m").read_bytes() == BIG
    assert loopback.asked[-1][2] == "bytes=1500000-"


def test_a_store_without_ranges_begins_anew(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    loopback.ranges = False
    (tmp_path / "m.part").write_bytes(BIG[:1000])
    fetch(hub, "model.safetensors", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG


@pytest.mark.parametrize("part", [b"x" * 1000, b"y" * len(BIG), b"z" * (len(BIG) + 5)], ids=["shorter", "as long", "longer"])
def test_a_part_of_something_else_is_found_out_and_gone(hub: Hub, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "m.part").write_bytes(part)
    with pytest.raises(Invalid) as refused:
        fetch(hub, "model.safetensors", tmp_path / "m")
    assert refused.value.code == "digest_differs"
    assert list(tmp_path.iterdir()) == []
    fetch(hub, "model.safetensors", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_what_is_not_what_the_hub_says_is_not_kept(hub: Hub, loopback: LoopbackHub, tmp_path: Path, file: str) -> None:
    loopback.lies = True
    with pytest.raises(Invalid) as refused:
        fetch(hub, file, tmp_path / file)
    assert refused.value.code == "digest_differs"
    assert list(tmp_path.iterdir()) == []


def test_what_is_here_already_is_not_sent_again(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(BIG)
    assert fetch(hub, "model.safetensors", tmp_path / "m") == [(len(BIG), len(BIG))]
    assert [method for method, _, _ in loopback.asked] == ["HEAD"]


def test_a_file_without_a_digest_is_refused(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    loopback.tells_digest = False
    with pytest.raises(Invalid) as refused:
        fetch(hub, "config.json", tmp_path / "c")
    assert refused.value.code == "hub_tells_no_digest"


def test_what_is_not_there_is_told_so(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        fetch(hub, "tokenizer.json", tmp_path / "t")
    assert refused.value.code == "hub_has_no_such_file"


def test_a_hub_that_fails_for_a_while_is_asked_again(hub: Hub, loopback: LoopbackHub, tmp_path: Path) -> None:
    loopback.failures = 2
    fetch(hub, "config.json", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == SMALL


def test_a_hub_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with serving(LoopbackHub()) as gone:
        pass
    hub = Hub(gone.url)
    with pytest.raises(Unavailable) as refused:
        fetch(hub, "config.json", tmp_path / "c")
    hub.close()
    assert refused.value.code == "hub_unreachable"
    assert hubs.TRIES == 5
