"""The reader of multipart bodies: it takes what clients send in pieces of any size, and refuses the rest by name."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelyard.domain.errors import DiskFull, Invalid, Malformed, ModelyardError, TooLarge, WrongType
from modelyard.store.blobs import Staged
from upload_service.multipart import Form, read_form

BOUNDARY = "----yard"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FILE = bytes(range(256)) * 40


def part(name: str, content: bytes, file_name: str | None = None, more: bytes = b"") -> bytes:
    """One part of a form."""
    named = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name is not None else "")
    return f"--{BOUNDARY}\r\n{named}\r\n".encode() + more + b"\r\n" + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    """A whole body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


NAMES = (part("username", b"ada"), part("model_name", b"fruit"))
WHOLE = body(*NAMES, part("description", "Sorts Früchte".encode()), part("file", FILE, "fruit.zip"))


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Form, bytes]]:
    """Reads a body in pieces, and gives the form with the bytes that reached the staging file."""

    def read(
        sent: bytes, sizes: Callable[[], int] = lambda: 65536, *, kind: str = TYPE, limit: int = 1 << 20, reserve: int = 0
    ) -> tuple[Form, bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            at = 0
            while at < len(sent):
                size = sizes()
                yield sent[at : at + size]
                at += size

        staged = Staged(tmp_path / "staged", limit, reserve)
        try:
            form = asyncio.run(read_form(kind, chunks(), staged))
            return form, staged.path.read_bytes()
        finally:
            staged.discard()

    return read


def test_the_file_and_the_fields_arrive_as_they_were_sent(read: Callable[..., tuple[Form, bytes]]) -> None:
    form, content = read(WHOLE)

    assert form.fields == {"username": "ada", "model_name": "fruit", "description": "Sorts Früchte"}
    assert (form.file_name, content) == ("fruit.zip", FILE)


@pytest.mark.parametrize("seed", range(5))
def test_however_the_body_is_cut_into_pieces_it_is_the_same(read: Callable[..., tuple[Form, bytes]], seed: int) -> None:
    chance = random.Random(seed)
    largest = (1, 3, 20, 200, 5000)[seed]

    assert read(WHOLE, lambda: chance.randint(1, largest)) == read(WHOLE)


def test_what_looks_like_a_boundary_inside_the_file_is_content(read: Callable[..., tuple[Form, bytes]]) -> None:
    tricky = f"\r\n--{BOUNDARY[:-1]}\r\n--{BOUNDARY[:-1]}x--\r\n-\r\n--".encode() * 50

    assert read(body(*NAMES, part("file", tricky, "a.zip")), lambda: 7)[1] == tricky


def test_the_fields_may_stand_behind_the_file_and_bytes_behind_the_end_are_nothing(read: Callable[..., tuple[Form, bytes]]) -> None:
    form, content = read(body(part("file", FILE, "a.zip"), *NAMES) + b"epilogue")

    assert (form.fields["username"], content) == ("ada", FILE)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "application/zip",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=x",
        "\x00;;=",
        "multipart/form-data; boundary",
    ],
)
def test_another_type_or_no_boundary_is_the_wrong_type(read: Callable[..., tuple[Form, bytes]], kind: str) -> None:
    with pytest.raises(WrongType) as refused:
        read(WHOLE, kind=kind)
    assert refused.value.code == "not_multipart"


def test_a_body_cut_anywhere_is_malformed(read: Callable[..., tuple[Form, bytes]]) -> None:
    end = len(WHOLE) - len(b"--\r\n")
    cuts = [0, 1, 5, 40, 60, 61, 100, 300, end // 2, *range(end - 8, end + 1)]

    for cut in cuts:
        with pytest.raises(Malformed) as refused:
            read(WHOLE[:cut])
        assert refused.value.code == "multipart_broken", cut


@pytest.mark.parametrize(
    ("parts", "field", "words"),
    [
        ((*NAMES,), "file", "missing"),
        ((*NAMES, part("file", FILE, "a.zip"), part("file", FILE, "b.zip")), "file", "twice"),
        ((*NAMES, part("username", b"eve"), part("file", FILE, "a.zip")), "username", "twice"),
        ((*NAMES, part("owner", b"eve"), part("file", FILE, "a.zip")), "owner", "not known"),
        ((*NAMES, part("x" * 500, b""), part("file", FILE, "a.zip")), "x" * 60, "not known"),
        ((part("username", b"\xff\xfe"), part("file", FILE, "a.zip")), "username", "not UTF-8"),
        ((part("description", b"a" * 70_000), part("file", FILE, "a.zip")), "description", "larger than 65536 bytes"),
        ((part("username", b"a" * 40_000), part("description", b"a" * 40_000)), "description", "larger than 65536 bytes"),
    ],
)
def test_missing_doubled_unknown_and_oversized_parts_are_refused_by_name(
    read: Callable[..., tuple[Form, bytes]], parts: tuple[bytes, ...], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        read(body(*parts))

    assert refused.value.code == "form_invalid"
    assert refused.value.errors[0]["field"] == field
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (body(*(part(f"x{n}", b"") for n in range(40))), Invalid),
        (body(part("username", b"ada", more=b"X-Long: " + b"a" * 20_000 + b"\r\n")), Malformed),
        (body(part("username", b"ada", more=b"a" * 20_000 + b": x\r\n")), Malformed),
        (b"not a form at all", Malformed),
        (f"--{BOUNDARY}\r\n\r\nno headers\r\n--{BOUNDARY}--".encode(), Invalid),
        (f"--{BOUNDARY}\r\nbroken header line\r\n\r\nx".encode(), Malformed),
    ],
)
def test_hostile_bodies_are_refused_as_ours(read: Callable[..., tuple[Form, bytes]], sent: bytes, error: type[ModelyardError]) -> None:
    with pytest.raises(error):
        read(sent)


def test_a_file_over_the_limit_is_refused_by_the_setting_s_name(read: Callable[..., tuple[Form, bytes]]) -> None:
    assert read(WHOLE, limit=len(FILE))[1] == FILE
    with pytest.raises(TooLarge, match=str(len(FILE) - 1)) as refused:
        read(WHOLE, limit=len(FILE) - 1)
    assert "upload.max_bytes" in refused.value.mend


def test_below_the_disk_s_reserve_nothing_is_taken(read: Callable[..., tuple[Form, bytes]]) -> None:
    with pytest.raises(DiskFull):
        read(WHOLE, reserve=1 << 60)


def test_a_boundary_longer_than_the_parser_takes_is_malformed(read: Callable[..., tuple[Form, bytes]]) -> None:
    with pytest.raises(Malformed):
        read(WHOLE, kind=f"multipart/form-data; boundary={'y' * 60_000}")


@pytest.mark.parametrize(
    "sent", [b"\r\n" * 400_000 + WHOLE, WHOLE + b"x" * 800_000, b"".join(b"--" + BOUNDARY.encode() + b"\r\n" for _ in range(50_000))]
)
def test_bytes_without_end_beside_the_file_are_malformed(read: Callable[..., tuple[Form, bytes]], sent: bytes) -> None:
    with pytest.raises(Malformed):
        read(sent)


def test_a_file_larger_than_what_may_stand_beside_it_is_taken(read: Callable[..., tuple[Form, bytes]]) -> None:
    large = FILE * 200
    assert read(body(*NAMES, part("file", large, "a.zip")), limit=len(large))[1] == large


def test_a_field_with_a_nul_is_refused(read: Callable[..., tuple[Form, bytes]]) -> None:
    with pytest.raises(Invalid) as refused:
        read(body(*NAMES, part("description", b"a\0b"), part("file", FILE, "a.zip")))
    assert refused.value.errors[0]["field"] == "description"
