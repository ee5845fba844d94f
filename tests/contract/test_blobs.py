"""`Blobs`: files named by their SHA-256, seen only when they are whole."""

import hashlib
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.domain.errors import DiskFull, TooLarge
from modelyard.domain.ids import Digest
from modelyard.store.blobs import FolderBlobs

CONTENT = b"0123456789" * 100


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FolderBlobs]:
    return FolderBlobs(tmp_path, limit_bytes=10_000, reserve_bytes=0)


def put(blobs: FolderBlobs, content: bytes) -> Digest:
    staged = blobs.stage()
    staged.write(content[:7])
    staged.write(content[7:])
    staged.finish()
    blobs.keep(staged)
    staged.discard()
    return staged.digest


def test_kept_bytes_are_found_by_their_digest(blobs: FolderBlobs) -> None:
    digest = put(blobs, CONTENT)

    assert digest == hashlib.sha256(CONTENT).hexdigest()
    with blobs.open(digest) as file:
        assert file.read() == CONTENT
    assert blobs.path(digest).stat().st_size == len(CONTENT)
    assert list(blobs.digests()) == [digest]


def test_what_is_not_kept_is_not_seen_and_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    staged = blobs.stage()
    staged.write(CONTENT)
    staged.finish()

    assert list(blobs.digests()) == []
    with pytest.raises(FileNotFoundError):
        blobs.open(staged.digest)
    staged.discard()
    staged.discard()
    assert list((tmp_path / "staging").iterdir()) == []


def test_the_same_bytes_are_kept_once_whoever_brings_them(blobs: FolderBlobs) -> None:
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: put(blobs, CONTENT), range(16)))

    assert set(blobs.digests()) == digests
    assert len(digests) == 1


def test_deleting_says_what_it_freed_and_nothing_the_second_time(blobs: FolderBlobs) -> None:
    digest = put(blobs, CONTENT)

    assert blobs.delete(digest) == len(CONTENT)
    assert blobs.delete(digest) == 0
    assert list(blobs.digests()) == []


def test_a_file_that_is_read_stays_readable_while_it_is_deleted(blobs: FolderBlobs) -> None:
    digest = put(blobs, CONTENT)
    with blobs.open(digest) as file:
        blobs.delete(digest)
        assert file.read() == CONTENT


def test_the_limit_holds_to_the_byte(blobs: FolderBlobs) -> None:
    staged = blobs.stage()
    staged.write(b"x" * 10_000)
    with pytest.raises(TooLarge) as refused:
        staged.write(b"x")
    staged.discard()

    assert refused.value.code == "upload_too_large"


def test_the_reserve_of_the_disk_is_not_touched(tmp_path: Path) -> None:
    staged = FolderBlobs(tmp_path, limit_bytes=10_000, reserve_bytes=1 << 60).stage()
    with pytest.raises(DiskFull) as refused:
        staged.write(b"x")
    staged.discard()

    assert refused.value.code == "disk_full"


def test_abandoned_staging_files_are_swept_and_fresh_ones_are_not(blobs: FolderBlobs, tmp_path: Path) -> None:
    dead, slow = tmp_path / "staging" / "dead", blobs.stage()
    dead.write_bytes(b"half of a zip")
    written_at = max(dead.stat().st_mtime, slow.path.stat().st_mtime)

    assert blobs.sweep_staging(60, written_at + 59) == 0
    # Whoever died let go of its file; who only writes slowly has not.
    assert blobs.sweep_staging(60, written_at + 61) == 1
    assert list((tmp_path / "staging").iterdir()) == [slow.path]
    slow.discard()
    assert list((tmp_path / "staging").iterdir()) == []


def test_the_folders_are_their_user_s_alone_and_strangers_in_them_are_no_digests(blobs: FolderBlobs, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "notes.txt").write_text("x")
    (tmp_path / "blobs" / ("A" * 64)).write_text("x")

    assert list(blobs.digests()) == []
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("blobs", "staging")} == {0o700}
