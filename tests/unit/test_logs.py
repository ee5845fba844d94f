"""Logs: one record a line whatever foreign text holds, and no escape sequence reaches a terminal."""

import json
import os
import pty
import random
import subprocess
import sys
from pathlib import Path

RECORDS = 200
WRITER = """
import json, logging, sys
import structlog
from modelyard.run.logs import configure
configure()
log = structlog.get_logger("yard")
for name in json.load(open(sys.argv[1])):
    log.info(name, name=name, nested={"name": name}, many=[name], raw=name.encode("utf-8", "replace"))
    logging.getLogger("library").warning("took %s", name)
"""
RAISER = """
import sys
import structlog
from modelyard.run.logs import configure
configure()
try:
    raise ValueError("\\x1b]0;owned\\x07 \\x9b31m \\u2028 end")
except ValueError:
    structlog.get_logger("yard").exception("broke")
"""


def hostile(seed: int) -> list[str]:
    """Names with every kind of control character, line end and half of a pair."""
    chance = random.Random(seed)
    pieces = ["\x1b[31m", "\x1b]0;title\x07", "\n", "\r\n", "\r", "\x00", "\x08", "\x7f", "\x85", "\x9b2J", "\u2028", "\u2029", "\t"]
    pieces += ["\v", "\f", '"', "\\", "{", "}", "%s", "ä", "😀", "\ud800", "a" * 50]
    return ["".join(chance.choices(pieces, k=chance.randint(1, 12))) for _ in range(RECORDS)]


def test_each_of_200_hostile_names_is_one_line_of_json_without_a_raw_control_character(tmp_path: Path) -> None:
    names = hostile(seed=7)
    (tmp_path / "names.json").write_text(json.dumps(names))
    ended = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "names.json"], capture_output=True, check=True, timeout=60)

    lines = ended.stderr.decode().splitlines()
    records = [json.loads(line) for line in lines]
    assert ended.stderr.count(b"\n") == len(lines) == 2 * RECORDS
    assert not set(ended.stderr) & ({*range(0x20), 0x7F} - {ord("\n")})
    assert {record["level"] for record in records} == {"info", "warning"}
    # What is printable is kept as it was.
    assert [("😀" in name) for name in names] == [("😀" in record["name"]) for record in records[::2]]


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["a" * 100_000]))
    ended = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "names.json"], capture_output=True, check=True, timeout=60)

    assert len(json.loads(ended.stderr.splitlines()[0])["name"]) == 8192


def on_terminal(*words: str) -> bytes:
    """What a program prints to a terminal that is its standard error."""
    outer, inner = pty.openpty()
    with subprocess.Popen([sys.executable, *words], stderr=inner, env={**os.environ, "NO_COLOR": "1", "TERM": "xterm"}) as program:
        os.close(inner)
        seen = b""
        while chunk := _read(outer):
            seen += chunk
    os.close(outer)
    assert program.returncode == 0, seen
    return seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO once the other side is closed
        return b""


def test_on_a_terminal_hostile_names_move_no_cursor(tmp_path: Path) -> None:
    names = hostile(seed=8)
    (tmp_path / "names.json").write_text(json.dumps(names))
    seen = on_terminal("-c", WRITER, str(tmp_path / "names.json"))

    text = seen.replace(b"\r\n", b"\n").decode("utf-8", "replace")
    assert text.count("\n") == 2 * RECORDS
    assert not [
        letter for letter in set(text) if (letter < " " and letter != "\n") or "\x7f" <= letter <= "\x9f" or letter in "\u2028\u2029"
    ]


def test_on_a_terminal_the_words_of_an_exception_are_tame_and_its_lines_are_kept() -> None:
    seen = on_terminal("-c", RAISER).decode()

    assert "\x1b" not in seen
    assert "\x9b" not in seen
    assert r"\x1b]0;owned\x07 \x9b31m \x2028 end" in seen
    assert "Traceback" in seen
    assert seen.count("\n") > 3
