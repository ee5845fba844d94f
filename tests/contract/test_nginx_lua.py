"""The rules of the two front doors, one in Python and one in Lua, side by side over the same made-up texts: they agree on each."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts.lua import Lua
from parts.nginx import START
from test_front_door_paths import fuzzed

from gateway import cookies, locations, paths
from gateway.locations import Place
from modelyard.domain.causes import parse_traceparent
from modelyard.domain.errors import Malformed, NotFound
from modelyard.web import tokens
from modelyard.web.origins import host_name

pytestmark = pytest.mark.nginx


@pytest.fixture(scope="module")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lua]:
    lua = Lua(tmp_path_factory.mktemp("lua"))
    yield lua
    lua.close()


def test_paths_are_taken_and_refused_alike(lua: Lua, scaled: Callable[[int], int]) -> None:
    rng = random.Random(7)
    sent = [fuzzed(rng).partition(b"?")[0].partition(b"#")[0] for _ in range(scaled(100_000))]
    refused = lua.ask("paths", "is_refused", [[path.decode("latin-1")] for path in sent])
    parsed = lua.ask("paths", "parse", [[path.decode("latin-1")] for path in sent])
    kinds = set()
    for path, (is_refused,), found in zip(sent, refused, parsed, strict=True):
        kind, target = python_path(path)
        kinds.add(kind)
        assert is_refused is (kind == "refused"), path
        if not is_refused:
            assert found == target, path
    assert kinds == {"refused", "none", "model"}


def python_path(path: bytes) -> tuple[str, list[str] | None]:
    try:
        target = paths.parse_target(path)
    except Malformed:
        return "refused", None
    except NotFound:
        return "none", None
    return "model", [target.owner, target.name, target.prefix.decode("latin-1"), target.path.decode("latin-1")]


PIECES = [
    "/",
    "//",
    "\\",
    "..",
    ".",
    "%2e",
    "%2E%2e",
    "?",
    "#",
    ":",
    "@",
    "http:",
    "HTTPS://",
    "javascript:",
    "x",
    "a/b",
    "localhost",
    ":80",
    ":443",
    ":8080",
]
PIECES += [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "[::1]",
    "[0:0::1]",
    "[::ffff:1.2.3.4]",
    "[1::2::3]",
    "evil.test",
    "evil.test.",
    "é",
    "\t",
    " ",
    "\n",
    "\x00",
]
PIECES += [
    "/m/ann/iris",
    "/m/ann/irises",
    "user:pw@",
    ";",
    "&",
    "=",
    "%",
    "%zz",
    "\x7f",
    "1.2.3.4",
    "1.2.3.04",
    "256.1.1.1",
    ":99999",
    ":",
    "data:",
    "ws://",
]


def test_redirects_are_rewritten_alike(lua: Lua, scaled: Callable[[int], int]) -> None:
    rng = random.Random(8)
    places = [
        {"scheme": scheme, "host": host, "prefix": prefix, "path": path, "query": query}
        for scheme in ("http", "https")
        for host in ("localhost:8080", "127.0.0.1", "[::1]:80", "x.apps.localhost")
        for prefix, path in (("/m/ann/iris", "/"), ("/m/ann/iris", "/a/b"), ("", "/a/"))
        for query in ("", "?q=1")
    ]
    asked = [("".join(rng.choice(PIECES) for _ in range(rng.randint(0, 6))), rng.choice(places)) for _ in range(scaled(100_000))]
    told = lua.ask("locations", "rewrite", [[value, place] for value, place in asked])
    for (value, place), got in zip(asked, told, strict=True):
        expected = locations.rewrite(value.encode("latin-1"), Place(**place))
        assert got == (None if expected is None else [expected.decode("latin-1")]), (value, place)


def test_cookies_pass_alike(lua: Lua, scaled: Callable[[int], int]) -> None:
    rng = random.Random(9)
    words = [
        "a=1",
        "__Host-modelyard",
        "__host-MODELYARD-app=x",
        "=__Host-modelyard=1",
        ";",
        "; ",
        " ",
        "\t",
        "=",
        "Domain",
        "domain=x",
        " DOMAIN = y",
        "Path=/",
        "b",
        '"',
    ]
    values = ["".join(rng.choice(words) for _ in range(rng.randint(0, 7))) for _ in range(scaled(40_000))]
    seen = lua.ask("cookies", "to_app", [[value] for value in values])
    kept = lua.ask("cookies", "to_caller", [[value] for value in values])
    for value, to_app, to_caller in zip(values, seen, kept, strict=True):
        assert to_app == _texts(cookies.to_app([value.encode()])), value
        assert to_caller == _texts(cookies.to_caller(value.encode())), value


def _texts(value: bytes | None) -> list[str] | None:
    return None if value is None else [value.decode()]


def test_hosts_and_traces_are_read_alike(lua: Lua, scaled: Callable[[int], int]) -> None:
    rng = random.Random(10)
    words = ["localhost", "LOCALHOST.", "[::1]", "127.0.0.1", ":8080", ":", "@", "/", " ", "x.apps.localhost", "..", "[", "]", "é"]
    hosts = ["".join(rng.choice(words) for _ in range(rng.randint(0, 4))) for _ in range(scaled(20_000))]
    assert lua.ask("origins", "host_name", [[host] for host in hosts]) == [[host_name(host)] for host in hosts]
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traces = ["".join(rng.choice("0123456789abcdefg-F") if rng.random() < 0.03 else char for char in good) for _ in range(scaled(20_000))]
    traces += [good, f"{good}-x", "01" + good[2:] + "-more", "ff" + good[2:], "", "00-" + "0" * 32 + "-b7ad6b7169203331-01"]
    for text, got in zip(traces, lua.ask("traces", "parse", [[text] for text in traces]), strict=True):
        trace = parse_traceparent(text)
        assert got == (None if trace is None else [trace.trace_id, trace.flags]), text


OBJECTS = [
    "{}",
    "[]",
    "",
    " ",
    "{",
    '{"a":1}',
    '{"a":1,"a":2}',
    '{"a":NaN}',
    '{"a":01}',
    '{"a":-0}',
    '{"a":1e5}',
    '{"a":1.}',
    '{"a":"\\u0041"}',
    '{"a":"\\ud83d\\ude00"}',
]
OBJECTS += [
    '{"a":"\x01"}',
    '{"a":"\x7f"}',
    '{"a":tru}',
    '{"a":null}',
    '{"a":[1,2,]}',
    '{"a":{"b":[{}]}} ',
    '{"a":1} x',
    "\ufeff{}",
    '{"a":"\\x"}',
    "{a:1}",
    '{"a" : [ ] }',
]
OBJECTS += [
    '{"a":1,}',
    '{"a":"\\"}',
    "[" * 200 + "]" * 200,
    '{"a":-}',
    '{"a":+1}',
    '{"a":0x10}',
    '{"a":Infinity}',
    "'{}'",
    '{"":0}',
    '{"a":"é"}',
]


def test_signed_texts_are_read_as_strictly(lua: Lua) -> None:
    for text in OBJECTS:
        raw = text.encode().decode("latin-1")
        [got] = lua.ask("strict_json", "object", [[raw]])
        expected = python_object(text)
        assert (got is None) is (expected is None), text
        if expected:
            assert set(got[0]) == set(expected), text


def python_object(text: str) -> dict[str, Any] | None:
    try:
        return tokens._object(text.encode())
    except (ValueError, RecursionError):
        return None


LINES = (b"POST / HTTP/1.1", b"POST /m/a?b=c HTTP/1.1", b"POST / HTTP/1.1 ", b"POST http://x/ HTTP/1.1", b"POST /\xe9 HTTP/1.1")
FIELDS = (b"Accept: */*", b"A:b", b"A:  b", b"A:", b"A", b"X_Y: dropped", b"Long: " + b"x" * 1500, b"Long: " + b"x" * 3000, b"A: b c ")
ENDS = (b"\r\n",) * 20 + (b"\n", b" \r\n", b"\t\n", b" \n")


BODIES = (b"", b"{}", b"\r", b"\n", b"\r\n", b"\r\n\r\n")
"""Some begin as a head ends, and may be taken for that."""


def fuzzed_request(rng: random.Random) -> bytes:
    body = rng.choice(BODIES)
    lines = [rng.choice(LINES[: rng.choice((1, 5))]), b"Host: x", *rng.choices(FIELDS, k=rng.randrange(6))]
    lines += [b"Content-Length: %d" % len(body)][: len(body) or rng.randrange(2)]
    return b"".join(line + rng.choice(ENDS) for line in lines) + rng.choice((b"\r\n", b"\r\n", b"\n")) + body


def test_a_head_is_plain_by_its_places_where_it_is_by_its_text_alone(lua: Lua, scaled: Callable[[int], int]) -> None:
    rng, kinds = random.Random(7), set()
    for _ in range(scaled(2000)):
        request = fuzzed_request(rng)
        told = lua.is_plain(request)
        if told is not None:
            by_place, by_text = told
            assert by_text or not by_place, request
            kinds.add(told)
    assert kinds == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("body", BODIES)
def test_a_head_that_ends_by_a_bare_line_feed_is_odd_whatever_follows_it(lua: Lua, body: bytes) -> None:
    for end in (b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"):
        told = lua.is_plain(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d" % len(body) + end + body)
        assert told == (end == b"\r\n\r\n",) * 2, end


def test_no_request_has_the_id_of_another(lua: Lua) -> None:
    ids = [found for (found,) in lua.ask("request_ids", "draw", [[]] * 1000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_no_lua_module_is_longer_than_modules_are() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (START.parent / "lua" / "modelyard").glob("*.lua")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_the_configuration_is_one_that_nginx_takes_and_an_auditor_finds_nothing_in(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "MODELYARD_DATA": str(tmp_path),
        "MODELYARD_GATEWAY__WORK": str(tmp_path / "work"),
    }
    asked = subprocess.run([START, "-t"], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert asked.returncode == 0, asked.stderr
    assert "warn" not in asked.stderr
    # The host is one of ours, or Lua has refused the call; how many files a process may open is its container's to say.
    skipped = "host_spoofing,worker_rlimit_nofile_vs_connections"
    audit = [sys.executable, "-m", "gixy", "--skips", skipped, "--format", "json", tmp_path / "work" / "nginx.conf"]
    found = subprocess.run(audit, capture_output=True, text=True, check=False, timeout=60)
    assert (found.returncode, json.loads(found.stdout)) == (0, []), found.stderr
