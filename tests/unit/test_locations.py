"""Location rewriting: honest redirects work, and hostile ones stay below the model's prefix."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.locations import Place, rewrite

PREFIX = "/m/ann/iris"
PLACE = Place("http", "localhost:8080", PREFIX, "/a/b", "?x=1")
HERE = f"http://localhost:8080{PREFIX}/a/b?x=1"


@pytest.mark.parametrize(
    ("honest", "seen"),
    [
        (b"/login", b"/m/ann/iris/login"),
        (b"/login?next=/a%2Fb&y=%20", b"/m/ann/iris/login?next=/a%2Fb&y=%20"),
        (b"c", b"/m/ann/iris/a/c"),
        (b"c/", b"/m/ann/iris/a/c/"),
        (b"./c", b"/m/ann/iris/a/c"),
        (b"../c", b"/m/ann/iris/c"),
        (b"..", b"/m/ann/iris/"),
        (b"?page=2", b"/m/ann/iris/a/b?page=2"),
        (b"#top", b"/m/ann/iris/a/b?x=1#top"),
        (b"", b"/m/ann/iris/a/b?x=1"),
        (b"/d#e?f", b"/m/ann/iris/d#e?f"),
        (b"/m/ann/iris/done", b"/m/ann/iris/done"),
        (b"http://localhost:8080/c?d=http://e/", b"/m/ann/iris/c?d=http://e/"),
        (b"http://localhost:8080", b"/m/ann/iris/"),
        (b"HTTP://LOCALHOST:8080/c", b"/m/ann/iris/c"),
        (b"https://example.org/a/../b?c#d", b"https://example.org/a/../b?c#d"),
        (b"https://example.org", b"https://example.org"),
        (b"http://example.org:8080/", b"http://example.org:8080/"),
        (b"//example.org/x", b"http://example.org/x"),
        (b"http://[2001:DB8::1]:81/", b"http://[2001:db8::1]:81/"),
        (b"/a b/\xe9", b"/m/ann/iris/a%20b/%E9"),
    ],
)
def test_an_honest_redirect_arrives(honest: bytes, seen: bytes) -> None:
    assert rewrite(honest, PLACE) == seen


HOSTILE = [
    *["/models", "/../models", "/../../../../models", "../../../../models", "/a/../../../models", "/%2e%2e/%2E%2e/%2e%2e/models"],
    *["/.%2e/%2e./../models", "..", "../../..", "/..", "/m/ann/iris/../../../models", "/m/ann/iris/%2e%2e/%2e%2e/%2e%2e/models"],
    *["/m/ann/iris2/", "/m/ann/iris-other/predict", "/m/eve/iris/", "/.//models", "/..//localhost:8080/models", "/./%2e/..//models"],
    *["//localhost:8080/models", "///localhost:8080/models", "////localhost:8080/models", "http:///localhost:8080/models"],
    *[
        "/\\localhost:8080/models",
        "\\\\localhost:8080\\models",
        "\\/localhost:8080/models",
        "http:\\\\localhost:8080\\models",
        "http:/\\localhost:8080/models",
    ],
    *[
        "/\t/localhost:8080/models",
        "\t//localhost:8080/models",
        " //localhost:8080/models",
        "ht\ttp://localhost:8080/models",
        "/.\t./.\t./../models",
    ],
    *[
        "http://evil@localhost:8080/models",
        "http://a:b@localhost:8080/models",
        "http://evil.org@localhost:8080/models",
        "http://a@b@localhost:8080/models",
    ],
    *["http://evil.org:80@localhost:8080/models", "http://localhost:8080\\@evil.org/../../../models", "http://LocalHost:8080/models"],
    *["http://localhost.:8080/models", "http://localhost:08080/models", "http://%6cocalhost:8080/models", "http://localhost%3a8080/models"],
    *["http:models", "http:/models", "http:../../../models", "HTTP:/models", "https:localhost:8080/models", "http:?a", "http:#a", "http:"],
    *[
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "gopher://localhost:8080/",
        "ftp://localhost:8080/",
        "JaVa\tScript:x",
    ],
    *[
        "http://",
        "http://:8080/",
        "http://[::1/",
        "http://localhost:99999/",
        "http://localhost:8080:8080/",
        "http://loc alhost:8080/",
        "//",
        "///",
    ],
    *[
        "http://\uff4cocalhost:8080/models",
        "http://localhost:8080/../../..",
        "http://localhost:8080?/../..",
        "\x00//localhost:8080/models",
        "\x01/models",
    ],
]


def _spelled(text: str) -> bytes:
    return text.encode("utf-8")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_location_never_leaves_the_prefix_on_the_callers_origin(hostile: str) -> None:
    value = rewrite(_spelled(hostile), PLACE)
    if value is not None:
        assert_below(value)


def assert_below(value: bytes) -> None:
    """Another origin in full, or a plain absolute path below the prefix that no reader of URLs can take for anything else."""
    text = value.decode("ascii")
    assert not set(text) & set("\t\r\n \\") or "?" in text or "#" in text
    split = urlsplit(text)
    if text.startswith("http"):
        assert split.scheme in {"http", "https"}
        assert split.hostname
        assert (split.hostname, split.port) != ("localhost", 8080)
        assert "@" not in split.netloc
        return
    path = text.partition("#")[0].partition("?")[0]
    assert path.startswith(PREFIX + "/")
    assert not {".", ".."} & set(path.lower().replace("%2e", ".").split("/"))
    landed = urlsplit(urljoin(HERE, text))
    assert landed.netloc == "localhost:8080"
    assert landed.path.startswith(PREFIX + "/")


@pytest.mark.parametrize(
    "short", [b"http://127.1:8080/models", b"http://2130706433:8080/models", b"http://0x7f.1:8080/models", b"http://0177.0.0.1:8080/models"]
)
def test_another_spelling_of_the_callers_address_is_removed(short: bytes) -> None:
    assert rewrite(short, Place("http", "127.0.0.1:8080", PREFIX, "/")) is None


def test_another_spelling_of_an_ipv6_address_is_the_same_origin() -> None:
    place = Place("http", "[::1]:8080", PREFIX, "/")
    assert rewrite(b"http://[0:0:0:0:0:0:0:1]:8080/models", place) == b"/m/ann/iris/models"


@pytest.mark.parametrize("value", [b"http://models.example/x", b"https://models.example/x", b"//models.example:443/x"])
def test_behind_a_tls_proxy_the_other_default_port_is_the_same_origin(value: bytes) -> None:
    assert rewrite(value, Place("https", "models.example", PREFIX, "/")) == b"/m/ann/iris/x"


@given(st.binary(max_size=60) | st.text("/\\.%2eE:@?#;hlo80 \t", max_size=40).map(str.encode))
def test_no_bytes_at_all_leave_the_prefix(value: bytes) -> None:
    seen = rewrite(value, PLACE)
    if seen is not None:
        assert_below(seen)
