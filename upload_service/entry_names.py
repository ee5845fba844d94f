"""Decides which names of entries are allowed, which are left out, and whether all together are distinct."""

import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace

from upload_service.entry_content import Entry
from upload_service.zip_records import MOST_NAME_BYTES, raw_name
from upload_service.zip_refusal import refusal

LEFT_OUT = frozenset({"__MACOSX", ".DS_Store", "__pycache__", ".git"})

_PART_BYTES, _MOST_PARTS = 255, 64
_SAID = 20
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

Named = tuple[str, bool, zipfile.ZipInfo]
"""The name in NFC with `/` between its parts, whether it is a folder's, and the record it is from."""


def named(info: zipfile.ZipInfo) -> Named:
    """The entry with its allowed name.

    Raises:
        Invalid: `archive_path`.
    """
    raw = raw_name(info)
    try:
        # The archiver of macOS writes UTF-8 and does not set the flag for it.
        text = raw.decode()
    except UnicodeDecodeError:
        text = info.orig_filename
    text = unicodedata.normalize("NFC", text.replace("\\", "/"))
    name = text.removesuffix("/")
    if re.match("[A-Za-z]:", name) or len(name.encode()) > MOST_NAME_BYTES or name.count("/") >= _MOST_PARTS or not _plain(name):
        raise refusal("archive_path", "is not a plain path inside the zip.", info.orig_filename)
    if not name.isprintable() and any(unicodedata.category(char) in _UNSEEN for char in name):
        raise refusal("archive_path", "holds a character that is not shown or changes the direction of text.", info.orig_filename)
    return name, text != name, info


def _plain(name: str) -> bool:
    return all(part not in {"", ".", ".."} and part[-1] not in ". " and len(part.encode()) <= _PART_BYTES for part in name.split("/"))


def left_out(names: Iterable[str]) -> dict[str, str]:
    """The names that are not read, each with the name or the virtual environment for which it is not."""
    names = tuple(names)
    environments = frozenset(name.rpartition("/")[0] for name in names if name.endswith("/pyvenv.cfg"))
    return {name: reason for name in names if (reason := _reason(name, environments))}


def _reason(name: str, environments: frozenset[str]) -> str | None:
    parts = name.split("/")
    part = next((part for part in parts if part in LEFT_OUT), None)
    if part or not environments:
        return part
    folders = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return next((folder for folder in folders if folder in environments), None)


def rooted(entries: list[Entry]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The entries without the one folder that may hold all of them, and the note that says so."""
    roots = {entry.name.partition("/")[0] for entry in entries}
    if len(roots) != 1 or any("/" not in entry.name and not entry.folder for entry in entries):
        return tuple(entries), ()
    root = roots.pop()
    inside = tuple(replace(entry, name=entry.name[len(root) + 1 :]) for entry in entries if entry.name != root)
    return inside, (f"root folder {root!r} stripped",)


def renamed(named: Iterable[Named]) -> Iterator[str]:
    """A note for each name that is not written as the zip has it."""
    named = tuple(named)
    if any("\\" in info.orig_filename for _, _, info in named):
        yield "backslashes in names became slashes"
    for name, _, info in named:
        if raw_name(info).isascii() or name.encode() == raw_name(info).replace(b"\\", b"/").removesuffix(b"/"):
            continue
        yield f"name became UTF-8 in NFC: {name}"


def few(said: Iterable[str]) -> tuple[str, ...]:
    """As many as a person reads, and how many more there are: each becomes a line of the build's log."""
    said = tuple(said)
    return said if len(said) <= _SAID else (*said[:_SAID], f"and {len(said) - _SAID} more")


def check_distinct(entries: Iterable[Entry], most: int) -> None:
    """No name twice, in whatever case, and none both a file and a folder: file systems differ in what they make of it.

    Raises:
        Invalid: `archive_path`; or `archive_bomb`, where the names make more than `most` files and folders.
    """
    # By the number of the folder above, since whole paths of deep names would take memory by the square of their depth.
    seen: dict[tuple[int, str], tuple[str, bool, int]] = {}
    written: set[str] = set()
    for entry in entries:
        parts, above = entry.name.split("/"), 0
        for depth, part in enumerate(parts, 1):
            key = (above, unicodedata.normalize("NFC", part.casefold()))
            folder = depth < len(parts) or entry.folder
            as_written, was_folder, above = seen.setdefault(key, (part, folder, len(seen) + 1))
            if (as_written, was_folder) != (part, folder):
                message = "differs from another name only by case, or by being a file or a folder."
                raise refusal("archive_path", message, "/".join(parts[:depth]))
        if len(seen) > most:
            raise refusal("archive_bomb", f"The zip makes more than {most} files and folders.")
        if entry.name in written:
            raise refusal("archive_path", "is in the zip twice.", entry.name)
        written.add(entry.name)
