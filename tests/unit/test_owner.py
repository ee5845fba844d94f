"""The owner's key on disk: written once, for its user alone."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from auth_service.owner import FILE, owner_key
from modelyard.domain.errors import Invalid


def test_the_first_start_writes_a_key_that_its_user_alone_can_read_and_later_ones_keep_it(tmp_path: Path) -> None:
    first = owner_key(tmp_path)

    assert owner_key(tmp_path) == first
    assert (tmp_path / FILE).read_text() == first.text + "\n"
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_all_who_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: owner_key(tmp_path), range(16)))

    assert len({key.text for key in keys}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_a_dead_process_of_the_same_number_left_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / f"owner.{os.getpid()}").write_text("half")

    assert owner_key(tmp_path).text == (tmp_path / FILE).read_text().strip()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_mend(tmp_path: Path, mode: int) -> None:
    owner_key(tmp_path)
    (tmp_path / FILE).chmod(mode)

    with pytest.raises(Invalid) as refused:
        owner_key(tmp_path)
    assert refused.value.code == "owner_token_unsafe"
    assert f"chmod 600 {tmp_path / FILE}" in refused.value.mend


@pytest.mark.parametrize("text", ["", "no key", "my_a_b_c"])
def test_a_file_without_a_key_is_refused_and_never_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    (tmp_path / FILE).chmod(0o600)

    with pytest.raises(Invalid) as refused:
        owner_key(tmp_path)
    assert refused.value.code == "owner_token_broken"
    assert (tmp_path / FILE).read_text() == text
