"""The program that installs, in a process of its own as in its container: what it sends is whole, in order, and the same every time."""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from upload_service import install_program
from upload_service.layers import copied_layer

PROGRAM = Path(install_program.__file__)
SENDS = """
from pathlib import Path
import install_program as program
root = Path(sys.argv[1])
program.GROUP_BYTES = int(sys.argv[2])
program.send(root, "env", program.Compiling(root, ["env/lib"]))
"""


def asked(text: str, *words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """What a text prints that may import the program, without a site and with a clean environment."""
    begun = f"import sys\nsys.path.insert(0, {str(PROGRAM.parent)!r})\n{text}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", begun, *words], input=given, capture_output=True, check=False, timeout=120)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An environment with folders in folders, a template that is no Python, and bytecode that somebody else made."""
    lib = tmp_path / "env" / "lib"
    for number in range(40):
        package = lib / f"p{number:02}" / "inner"
        package.mkdir(parents=True)
        for name in ("__init__", "a", "b", "Z"):
            (package / f"{name}.py").write_text(
                f"WORDS = ('{number}', '{name}', 'pears')\ndef told(first, second=3.5):\n    return WORDS\n"
            )
        (package.parent / "__init__.py").write_text("")
    (lib / "template.py").write_text("{{ name }} = class\n")
    (lib / "warns.py").write_text("FOUND = 1 is 1\n")
    (lib / "bytes.py").write_bytes(b"WORD = '\xff'\n")
    deep = lib / ("a-long-name-" * 12)
    deep.mkdir()
    (deep / ("b" * 120 + ".py")).write_text("LONG = 1\n")
    (lib / "lib64").symlink_to(".")
    (lib / "p00" / "__pycache__").mkdir()
    (lib / "p00" / "__pycache__" / "__init__.cpython-99.pyc").write_bytes(b"theirs")
    (tmp_path / "env" / "bin").mkdir()
    (tmp_path / "env" / "bin" / "python").symlink_to("/usr/bin/python3")
    (tmp_path / "env" / "bin" / "tool").write_text("#!/env/bin/python\n")
    (tmp_path / "env" / "bin" / "tool").chmod(0o755)
    return tmp_path


def sent(told: "subprocess.CompletedProcess[bytes]") -> bytes:
    lines, mark, tar = told.stdout.partition(install_program.MARK)
    assert (lines, mark) == (b"", install_program.MARK)
    return tar


def digest(tar: bytes, spool: Path) -> str:
    with copied_layer([tar], "env", lambda target: target == "/usr/bin/python3", {}, [], spool) as layer:
        return layer.diff_id


def test_what_is_sent_is_a_layer_and_the_same_one_however_the_work_is_shared_out(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool, found = tmp_path_factory.mktemp("spool"), set()
    for group_bytes in (1, 1_000, 200_000, 200_000):
        for each in root.rglob("*.pyc"):
            if "99" not in each.name:
                each.unlink()
        told = asked(SENDS, str(root), str(group_bytes))
        assert (told.returncode, told.stderr) == (0, b"")
        found.add(digest(sent(told), spool))
    assert len(found) == 1


def test_every_module_that_is_python_comes_with_its_bytecode_and_the_names_of_the_image(root: Path) -> None:
    told = asked(SENDS, str(root), "500")
    with tarfile.open(fileobj=io.BytesIO(sent(told))) as tar:
        found = {each.name: tar.extractfile(each).read() for each in tar if each.isreg()}  # type: ignore[union-attr]
        modes = {each.name: each.mode & 0o111 for each in tar.getmembers()}
    tag = sys.implementation.cache_tag
    sources = {name for name in found if name.endswith(".py")} - {"env/lib/template.py", "env/lib/bytes.py"}
    made = {name.replace("/__pycache__", "").replace(f".{tag}.pyc", ".py") for name in found if name.endswith(f"{tag}.pyc")}
    assert made == sources
    assert found["env/lib/p00/__pycache__/__init__.cpython-99.pyc"] == b"theirs"
    assert (modes["env/bin/tool"] != 0, modes["env/lib/p00/inner/a.py"]) == (True, 0)
    bytecode = found[f"env/lib/p07/inner/__pycache__/Z.{tag}.pyc"]
    assert bytecode[:4] == importlib.util.MAGIC_NUMBER
    assert bytecode[4:8] == b"\x01\x00\x00\x00", "unchecked, by the hash of its source"
    assert bytecode[8:16] == importlib.util.source_hash(found["env/lib/p07/inner/Z.py"])
    assert b"/env/lib/p07/inner/Z.py" in bytecode
    assert str(root).encode() not in b"".join(found.values())


def test_a_process_that_dies_while_it_compiles_fails_the_whole(root: Path) -> None:
    dies = "import os\nimport install_program\ninstall_program.write_bytecode = lambda *words: os.kill(os.getpid(), 9)\n"
    told = asked(dies + SENDS, str(root), "500")
    assert told.returncode == install_program.FAILED
    assert not told.stdout.endswith(bytes(2 * tarfile.BLOCKSIZE)), "its end would say that it is whole"


def test_a_disk_that_is_full_while_it_compiles_is_told(root: Path) -> None:
    full = (
        "import errno\nimport install_program\ndef write(*words):\n    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "install_program.write_bytecode = write\n"
    )
    told = asked(full + SENDS, str(root), "500")
    assert (told.returncode, b"No space left on device" in told.stderr) == (install_program.FAILED, True)


RUNS = """
import install_program as program
print(program.run(sys.argv[2:], else_fails=sys.argv[1] == "fails"))
"""
FULL = "echo 'Failed to copy: No space left on device (os error 28)'; exit 2"


@pytest.mark.parametrize(
    ("else_fails", "does", "status", "printed"),
    [
        ("tries", "echo found", 0, "found\nTrue\n"),
        ("tries", FULL, 0, "False\n"),
        ("fails", FULL, install_program.FAILED, "Failed to copy: No space left on device (os error 28)\n"),
        ("tries", "echo was not found in the cache >&2; exit 2", install_program.NOT_CACHED, "was not found in the cache\n"),
        ("fails", "echo Read-only file system; exit 2", install_program.NOT_CACHED, "Read-only file system\n"),
    ],
)
def test_how_a_tool_ended_is_told_by_the_exit_status(else_fails: str, does: str, status: int, printed: str) -> None:
    told = asked(RUNS, else_fails, "sh", "-c", does)
    assert (told.returncode, told.stdout.decode(), told.stderr) == (status, printed, b"")


def test_whoever_is_given_nothing_ends(tmp_path: Path) -> None:
    reads = (
        f"import install_program as program\nfrom pathlib import Path\nprogram.SCRATCH = Path({str(tmp_path)!r})\nprint(program.told())\n"
    )
    for given in (b"", b'{"own": "cut sho'):
        told = asked(reads, given=given)
        assert (told.returncode, told.stdout) == (install_program.FAILED, b"")
    told = asked(reads, given=json.dumps({"server": "b==1", "own": "a==1", "ca.pem": "x"}).encode() + b"\n")
    assert [name for name in ("own", "server") if name.encode() in told.stdout] == ["own", "server"]
    assert (tmp_path / "ca.pem").read_text() == "x"


def test_a_cache_is_seen_but_for_what_uv_writes_into(tmp_path: Path) -> None:
    cache, own = tmp_path / "cache", tmp_path / "own"
    for name in ("archive-v0", "wheels-v8", "sdists-v11", "interpreter-v5/ab"):
        (cache / name).mkdir(parents=True)
    (cache / "interpreter-v5" / "ab" / "x.msgpack").write_text("known")
    (cache / ".lock").touch()
    install_program.share_cache(cache, own)
    install_program.link_cache(cache, own)
    assert sorted(each.name for each in own.iterdir()) == ["archive-v0", "interpreter-v5", "wheels-v8"]
    assert ((own / "archive-v0").is_symlink(), (own / "interpreter-v5").is_symlink()) == (True, False)
    assert (own / "interpreter-v5" / "ab" / "x.msgpack").read_text() == "known"
    install_program.share_cache(tmp_path / "nowhere", own)
    install_program.link_cache(tmp_path / "nowhere", own)
