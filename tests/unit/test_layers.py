"""Layers: the same files are the same bytes, and nothing in them leads out of them, whatever an engine sends."""

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upload_service.builders import BuildError
from upload_service.layers import Layer, LayerWriter, copied_layer

PYTHON = "/usr/bin/python3"


def tar(*members: tuple[str, bytes, str | bytes]) -> Iterator[bytes]:
    """A tar of these: a name, a type, and a target or a content; uids, times and modes that must not matter."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as written:
        for name, kind, told in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.mtime, entry.uname = kind, 0o4771, 1234, 99, "somebody"
            content = b""
            if isinstance(told, str):
                entry.linkname = told
            else:
                content, entry.size = told, len(told)
            written.addfile(entry, io.BytesIO(content))
    yield from (made.getvalue()[at : at + 700] for at in range(0, len(made.getvalue()), 700))


def copied(spool: Path, *members: tuple[str, bytes, str | bytes]) -> Layer:
    return copied_layer(tar(*members), "env", lambda target: target == PYTHON, {"etc/ours": b"ours"}, ["app"], spool)


def entries(layer: Layer) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(layer.chunks()))) as read:
        return read.getmembers()


FILES = [
    ("env", tarfile.DIRTYPE, ""),
    ("env/bin", tarfile.DIRTYPE, ""),
    ("env/bin/python", tarfile.SYMTYPE, PYTHON),
    ("env/lib", tarfile.DIRTYPE, ""),
    ("env/lib/a.py", tarfile.REGTYPE, b"print()"),
    ("env/lib64", tarfile.SYMTYPE, "lib"),
]


def test_who_made_a_file_and_when_does_not_matter(tmp_path: Path) -> None:
    with copied(tmp_path, *FILES) as layer, copied(tmp_path, *FILES) as again:
        assert layer.diff_id == again.diff_id
        assert [(each.name, oct(each.mode), each.uid, each.mtime, each.uname) for each in entries(layer)] == [
            ("env", "0o755", 0, 0, ""),
            ("env/bin", "0o755", 0, 0, ""),
            ("env/bin/python", "0o777", 0, 0, ""),
            ("env/lib", "0o755", 0, 0, ""),
            ("env/lib/a.py", "0o755", 0, 0, ""),
            ("env/lib64", "0o777", 0, 0, ""),
            ("etc", "0o755", 0, 0, ""),
            ("etc/ours", "0o644", 0, 0, ""),
            ("app", "0o1777", 0, 0, ""),
        ]
        assert layer.content_bytes == len(f"print()ours{PYTHON}lib")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "members",
    [
        [("../env", tarfile.DIRTYPE, "")],
        [("/env/x", tarfile.REGTYPE, b"")],
        [("env/../x", tarfile.REGTYPE, b"")],
        [("env//x", tarfile.REGTYPE, b"")],
        [("etc/passwd", tarfile.REGTYPE, b"")],
        [("env/x", tarfile.LNKTYPE, "env/y")],
        [("env/x", tarfile.CHRTYPE, "")],
        [("env/x", tarfile.BLKTYPE, "")],
        [("env/x", tarfile.FIFOTYPE, "")],
        [("env/x", tarfile.SYMTYPE, "/etc/passwd")],
        [("env/x", tarfile.SYMTYPE, "../etc/passwd")],
        [("env/a/x", tarfile.SYMTYPE, "../../etc")],
        [("env/a/x", tarfile.SYMTYPE, "b/../../..")],
        [("env/x", tarfile.SYMTYPE, "")],
        [("env/x", tarfile.SYMTYPE, "y" * 2000)],
        [("env/x", tarfile.SYMTYPE, "lib"), ("env/x/y", tarfile.REGTYPE, b"")],
        [("env/x", tarfile.REGTYPE, b""), ("env/x", tarfile.REGTYPE, b"")],
        [("env/b", tarfile.REGTYPE, b""), ("env/a", tarfile.REGTYPE, b"")],
        [("env/x\udcff", tarfile.REGTYPE, b"")],
    ],
    ids=range(19),
)
def test_what_leads_out_or_is_no_file_is_refused(tmp_path: Path, members: list[tuple[str, bytes, str | bytes]]) -> None:
    with pytest.raises(BuildError) as refused:
        copied(tmp_path, *members)
    assert refused.value.code == "install_refused"
    assert list(tmp_path.iterdir()) == []


PART = st.sampled_from(["env", "a", "b", "c", "..", ".", "", "lib", "\u00e9"])
NAME = st.lists(PART, min_size=1, max_size=5).map("/".join)
KIND = st.sampled_from([tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
TARGET = st.one_of(NAME, NAME.map("/".__add__), st.just(PYTHON))
MEMBERS = st.lists(st.tuples(NAME.map("env/".__add__), KIND, TARGET), max_size=8)


def test_whatever_is_sent_a_layer_that_is_made_stays_inside(scaled: Callable[[int], int]) -> None:
    made = 0

    @settings(max_examples=scaled(4_000), deadline=None, database=None)
    @given(MEMBERS, st.booleans())
    def tried(members: list[tuple[str, bytes, str]], ordered: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        nonlocal made
        if ordered:
            members = sorted({name: (name, kind, target) for name, kind, target in members}.values(), key=lambda each: each[0].split("/"))
        with tempfile.TemporaryDirectory() as folder:
            try:
                layer = copied(
                    Path(folder),
                    *(
                        (name, kind, target if kind == tarfile.SYMTYPE else b"" if kind == tarfile.REGTYPE else "")
                        for name, kind, target in members
                    ),
                )
            except BuildError:
                return
            with layer:
                made += bool(members)
                unpacked_stays_inside(layer, Path(folder))

    tried()
    assert made


def unpacked_stays_inside(layer: Layer, folder: Path) -> None:
    """Unpack it as an engine does, then follow every link with the kernel's own eyes."""
    root = folder / "root"
    root.mkdir()
    names = set()
    for entry in entries(layer):
        path = root / entry.name
        assert entry.name not in names
        assert ".." not in PurePosixPath(entry.name).parts
        names.add(entry.name)
        if entry.isdir():
            path.mkdir()
        elif entry.issym():
            path.symlink_to(entry.linkname)
        else:
            assert entry.isreg()
            path.touch()
        assert path.parent.resolve() == path.parent, "nothing lies behind a link"
    for entry in entries(layer):
        if entry.issym() and entry.linkname != PYTHON:
            try:
                found = Path(os.path.realpath(root / entry.name))
            except OSError:  # a circle
                continue
            assert found == Path(PYTHON).resolve() or found == Path(PYTHON) or found.is_relative_to(root / "env")


def test_a_file_that_is_longer_than_said_is_an_error(tmp_path: Path) -> None:
    with LayerWriter(tmp_path) as writer, pytest.raises(ValueError, match="longer"):
        writer.file("x", 2, [b"ab", b"c"])
