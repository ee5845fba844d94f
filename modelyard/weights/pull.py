"""Pulls an entry's checkpoint from a folder or a hub, has its graph written, and puts it in force."""

import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelyard.domain.errors import Invalid, NotReady
from modelyard.domain.weights import TENSORS, Entry
from modelyard.weights.folder import Kept, WeightsFolder, broken, sha256_of
from modelyard.weights.hub import Hub, Progress

EXPORT_S = 600.0


class Told(Protocol):
    """Hears how a pull goes on."""

    def file(self, name: str) -> Progress:
        """A file begins; what is returned is told the bytes."""

    def step(self, words: str) -> None:
        """Something else begins."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be pulled.

    Args:
        folder: A checkpoint on this machine; None: from the hub.
        repo: `owner/name` on the hub.
        sha256: The digest that the tensors must have; empty: that which the hub tells.
    """

    entry: Entry
    folder: Path | None
    repo: str
    revision: str
    sha256: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, as it is recorded."""
        return str(self.folder) if self.folder is not None else self.repo


def wanted(entry: Entry, source: str | None, sha256: str) -> Wanted:
    """What `--from` means: a folder that is there, else `owner/name` or `owner/name@revision` on the hub.

    Raises:
        Invalid: `source_invalid`.
    """
    if source is None:
        return Wanted(entry, None, entry.hub, entry.revision, sha256)
    if Path(source).is_dir():
        return Wanted(entry, Path(source).resolve(), "", "", sha256)
    repo, _, revision = source.partition("@")
    parts = repo.split("/")
    if len(parts) != 2 or not all(part and part.strip(".") and part.isprintable() for part in parts):  # noqa: PLR2004 - owner and name
        raise Invalid(
            "source_invalid", f"{source!r} is no folder here, and no name on a hub.", f"Name a folder, or owner/name such as {entry.hub}."
        )
    return Wanted(entry, None, repo, revision or "main", sha256)


def pull(what: Wanted, weights: WeightsFolder, tools: Path, hub_url: str, told: Told) -> Kept:
    """Pull it, and put it in force; what was in force before stays so until then.

    Args:
        tools: The program that writes graphs, `models/tools`.

    Raises:
        Invalid: `checkpoint_invalid`, `digest_differs`, `hub_has_no_such_file`.
        Unavailable: The hub cannot be reached; the next pull goes on where this one ended.
    """
    with weights.pulling(what.entry.name) as stage:
        gathered = stage / "checkpoint"
        gathered.mkdir(exist_ok=True)
        revision = _copied(what, gathered, told) if what.folder is not None else _downloaded(what, gathered, hub_url, told)
        if what.sha256 and (found := sha256_of(gathered / TENSORS)) != what.sha256:
            shutil.rmtree(stage)
            raise Invalid("digest_differs", f"{TENSORS} has the SHA-256 {found}, not {what.sha256}.", "Pull the checkpoint that you meant.")
        told.step("writing the graph")
        try:
            _export(tools, gathered)
        except Invalid:
            shutil.rmtree(stage)  # it would be found bad again, whatever is pulled next
            raise
        kept = weights.put(what.entry.name, gathered, what.source, revision)
        shutil.rmtree(stage, ignore_errors=True)
        return kept


def whole(weights: WeightsFolder, name: str) -> Kept:
    """What is in force, every byte of it as it was when it came.

    Raises:
        NotReady: `weights_missing`.
        Invalid: `weights_broken`.
    """
    kept = weights.kept(name)
    if kept is None:
        raise NotReady("weights_missing", f"The weights of {name} are not here.", f"Run: modelyard models pull {name}")
    if wrong := broken(kept):
        raise Invalid("weights_broken", f"Changed since they came: {', '.join(wrong)}.", f"Run: modelyard models pull {name} --again")
    return kept


def _copied(what: Wanted, gathered: Path, told: Told) -> str:
    assert what.folder is not None  # noqa: S101 - the caller has looked
    for name in what.entry.files:
        source, progress = what.folder / name, told.file(name)
        try:
            size = source.stat().st_size
            shutil.copyfile(source, gathered / name)
        except OSError as error:
            detail = f"{source} cannot be read: {error.strerror}."
            mend = f"Name a folder with {', '.join(what.entry.files)}."
            raise Invalid("checkpoint_invalid", detail, mend) from error
        progress(size, size)
    return ""


def _downloaded(what: Wanted, gathered: Path, hub_url: str, told: Told) -> str:
    revision = what.revision
    with closing(Hub(hub_url)) as hub:
        for name in what.entry.files:
            remote = hub.describe(what.repo, revision, name)
            # All files of one commit, whatever is published meanwhile.
            revision = remote.commit or revision
            hub.fetch(remote, gathered / name, told.file(name))
    return revision


def _export(tools: Path, folder: Path) -> None:
    """Have the graph written, by a process of its own: it reads what strangers published."""
    command = [sys.executable, "-I", str(tools), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=EXPORT_S, env={"LANG": "C.UTF-8"})
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise Invalid(
            "checkpoint_invalid",
            f"The checkpoint cannot be used: {lines[-1].removeprefix('error: ')[:600]}",
            "Pull one in the transformers format with safetensors.",
        )
