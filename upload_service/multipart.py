"""Reads a multipart body as it arrives: the file goes to its staging file, and never whole into memory (RFC 7578)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelyard.domain.errors import Invalid, Malformed, WrongType
from modelyard.store.blobs import Staged

FIELDS = frozenset({"username", "model_name", "description"})
MOST_FIELDS_BYTES = 64 * 1024
MOST_PARTS = 20
MOST_HEADER_BYTES = 8 * 1024
MOST_BESIDE_BYTES = 512 * 1024
WRITE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Form:
    """The text fields of an upload, and the name that its file came with."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None


async def read_form(content_type: str, chunks: AsyncIterator[bytes], staged: Staged) -> Form:
    """Stream the part `file` into the staging file, and return the fields beside it.

    Raises:
        WrongType: The body is not `multipart/form-data`.
        Malformed: It does not parse, ends too early, or holds too much beside the file.
        Invalid: A part is unknown, doubled or too large.
        TooLarge: The file is.
    """
    try:
        reader = _Reader(_boundary(content_type))
    except FormParserError as error:
        # The parser limits the boundary's length.
        raise _broken() from error
    async for chunk in chunks:
        reader.feed(chunk)
        if len(reader.pending) >= WRITE_BYTES:
            await run_sync(reader.flush, staged)
    await run_sync(reader.flush, staged)
    reader.finish()
    await run_sync(staged.finish)
    return reader.form


async def lively(chunks: AsyncIterator[bytes], stall_s: float) -> AsyncIterator[bytes]:
    """The same chunks, as long as they come: a client that is gone without a word must not hold its upload for ever.

    Raises:
        Malformed: `upload_stalled`, no byte came for `stall_s`.
    """
    while True:
        try:
            async with asyncio.timeout(stall_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Malformed("upload_stalled", f"No byte of the upload came for {stall_s:g} s.", "Send it again.") from None
        if chunk is None:
            return
        yield chunk


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise WrongType(
            "not_multipart", "An upload is multipart/form-data.", "Send it with: curl -F username=... -F model_name=... -F file=@app.zip"
        )
    return options[b"boundary"]


class _Reader:
    """Collects what the parser calls back; bytes of the file wait in `pending` until they are flushed."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self.pending = bytearray()
        self._parts = 0
        self._header = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._value_from = 0
        self._name = ""
        self._text = bytearray()
        self._text_bytes = 0
        self._ended = False
        self._beside_bytes = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._content,
                "on_part_end": self._end,
                "on_end": self._all,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise _broken() from error
        # Headers, and bytes before the first part and behind the last one, have no limit of their own.
        self._beside_bytes += len(chunk)
        if self._beside_bytes > MOST_BESIDE_BYTES:
            raise _broken()

    def flush(self, staged: Staged) -> None:
        if self.pending:
            staged.write(bytes(self.pending))
            self.pending.clear()

    def finish(self) -> None:
        try:
            self._parser.finalize()
        except MultipartParseError as error:
            raise _broken() from error
        if not self._ended:
            raise _broken()
        if self.form.file_name is None:
            raise _refused("file", "The zip is missing.", "Add it as the part `file`: curl -F file=@app.zip")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _refused("", f"A form has at most {MOST_PARTS} parts.", "Send username, model_name, description and file.")
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(data[start:end])
        self._value_from = len(self._header)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(data[start:end])

    def _header_end(self) -> None:
        self._headers[bytes(self._header[: self._value_from]).lower()] = bytes(self._header[self._value_from :])
        self._header.clear()

    def _grow_header(self, piece: bytes) -> None:
        self._header += piece
        if len(self._header) > MOST_HEADER_BYTES:
            raise _broken()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._text.clear()
        if self._name in self.form.fields or (self._name == "file" and self.form.file_name is not None):
            raise _refused(self._name, f"The part {self._name!r} came twice.", "Send each part once.")
        if self._name == "file":
            self.form.file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        elif self._name not in FIELDS:
            raise _refused(self._name, f"The part {self._name[:60]!r} is not known.", "Send username, model_name, description and file.")

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self.pending += data[start:end]
            self._beside_bytes -= end - start
            return
        self._text_bytes += end - start
        if self._text_bytes > MOST_FIELDS_BYTES:
            raise _refused(self._name, f"The fields are larger than {MOST_FIELDS_BYTES} bytes in all.", "Shorten the description.")
        self._text += data[start:end]

    def _end(self) -> None:
        if self._name != "file":
            try:
                text = self._text.decode()
            except UnicodeDecodeError as error:
                raise _refused(self._name, f"The field {self._name} is not UTF-8.", "Send it as UTF-8.") from error
            if "\0" in text:
                # Not every database keeps it.
                raise _refused(self._name, f"The field {self._name} holds a NUL character.", "Send text.")
            self.form.fields[self._name] = text

    def _all(self) -> None:
        self._ended = True


def _broken() -> Malformed:
    return Malformed(
        "multipart_broken", "The multipart body cannot be read, or ended too early.", "Send it again; let the client write the boundary."
    )


def _refused(name: str, message: str, mend: str) -> Invalid:
    return Invalid("form_invalid", message, mend, errors=[{"field": name[:60], "message": message}])
