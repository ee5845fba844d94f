"""Names of sockets in the run folder: taken over whole, and gone with their process."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.domain.errors import Invalid
from modelyard.run.unix_socket import forget_the_dead, listen, process_mark, run_folder


def a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return ended.pid


def test_what_is_named_after_a_dead_process_is_removed_and_nothing_else(short_folder: str) -> None:
    folder = run_folder(Path(short_folder))
    dead, alive = process_mark(a_dead_process()), process_mark(os.getpid())
    kept = [f"upload-{alive}.sock", f"gateway-{alive}.starting", "door.sock", "door.lock", "runner.lock", "ways-in.sock"]
    for name in (*kept, f"upload-{dead}.sock", f"gateway-{dead}.starting", f"door.{dead}"):
        (folder / name).touch()

    forget_the_dead(folder)

    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_what_another_pid_namespace_listens_on_is_kept_and_what_it_left_is_removed(short_folder: str) -> None:
    folder = run_folder(Path(short_folder))
    elsewhere = f"{'f' * 8}-{os.getpid()}"
    with closing(listen(folder / "auth.sock")), closing(listen(folder / "upload.sock")) as ended:
        (folder / "auth.sock").rename(folder / f"auth-{elsewhere}.sock")
        (folder / "upload.sock").rename(folder / f"upload-{elsewhere}.sock")
        (folder / f"gateway-{elsewhere}.starting").hardlink_to(folder / f"upload-{elsewhere}.sock")
        ended.close()
        forget_the_dead(folder)
        assert len(list(folder.iterdir())) == 3, "whoever bound a moment ago may be about to listen"
        os.utime(folder / f"upload-{elsewhere}.sock", (0, 0))

        forget_the_dead(folder)

        assert [path.name for path in folder.iterdir()] == [f"auth-{elsewhere}.sock"]


def test_a_name_is_taken_over_and_its_file_is_for_this_user_alone(short_folder: str) -> None:
    path = run_folder(Path(short_folder)) / "door.sock"
    with closing(listen(path)), closing(listen(path)):
        assert (path.stat().st_mode & 0o777, [each.name for each in path.parent.iterdir()]) == (0o600, ["door.sock"])


def test_a_folder_that_others_may_enter_is_refused(short_folder: str) -> None:
    folder = run_folder(Path(short_folder))
    folder.chmod(0o755)

    with pytest.raises(Invalid) as refused:
        run_folder(Path(short_folder))

    assert refused.value.code == "run_folder_shared"
