"""Reads an untrusted requirements.txt and writes every requirement anew, so that none of the user's bytes reach a tool.

Accepted is `name[extra] op version ; marker` (PEP 508 without URLs); whatever tells an installer what to do is refused.
"""

import re
from typing import NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import MIB

MOST_BYTES = MIB
MOST_LINES = 2_000
_LINE_LENGTH = 2_000

# One `\s` before what is searched for, never `\s+`: a search that begins anew at every space takes time by their square.
_HASHES_BEGIN = re.compile(r"\s--hash")
_HASHES = re.compile(r"(?:\s++--hash(?:=|\s++)sha(?:256|384|512):[0-9a-fA-F]{64,128}+)++")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LINK = re.compile(r"://|^[a-z][a-z0-9+.-]*:|^(?:git|hg|svn|bzr)\+|\s@|\S@", re.IGNORECASE)
_PATH = re.compile(r"^[./~\\]|^[^;\[]*[/\\]|^[^;=<>!~\s\[]*\.(?:whl|zip|egg|tar|tgz|tar\.\w+)(?=[\s;\[]|$)", re.IGNORECASE)
_MARKER = re.compile(
    r"(?:\s++|[()]|~=|===?|!=|[<>]=?|(?:and|or|not|in)\b"
    r"|(?:python_version|python_full_version|os_name|sys_platform|platform_machine|platform_system"
    r"|platform_release|platform_python_implementation|implementation_name|implementation_version)\b"
    r'|"[A-Za-z0-9._+*, -]{0,64}")*+'
)
_MEND = "Write the package as `name[extra] op version ; marker`, for example `numpy>=2.0`."


def read_requirements(text: str | bytes, file: str) -> tuple[str, ...]:
    """The requirements, one a line, in the file's order; hashes are dropped, since the build's own lock holds them.

    Args:
        text: The file's content; bytes are read as UTF-8, with or without a byte order mark.
        file: Its name, for messages.

    Raises:
        Invalid: `requirements_option` (naming file and line), `requirements_encoding` or `requirements_too_long`.
    """
    decoded = _decoded(text, file)
    lines = decoded.replace("\r\n", "\n").split("\n")
    if len(decoded) > MOST_BYTES or len(lines) > MOST_LINES:
        message = f"{file} is longer than {MOST_LINES} lines or {MOST_BYTES} bytes."
        raise Invalid("requirements_too_long", message, "List only what the app imports.")
    return tuple(_written(line, file, number) for number, line in _logical(lines) if line)


def _decoded(text: str | bytes, file: str) -> str:
    try:
        decoded = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError:
        mend = "Save it as UTF-8; in PowerShell: `pip freeze | Out-File -Encoding utf8 requirements.txt`."
        raise Invalid(
            "requirements_encoding", f"{file} is not UTF-8 text.", mend, errors=[{"entry": file, "message": "not UTF-8"}]
        ) from None
    return decoded.removeprefix("\ufeff")


def _logical(lines: list[str]) -> list[tuple[int, str]]:
    """Lines with their continuations and without comments, each with the number of its first."""
    found: list[tuple[int, str]] = []
    begun, joined = 0, ""
    for number, line in enumerate(lines, 1):
        # A comment cannot be continued, and ends what was.
        comment = line.lstrip().startswith("#")
        begun, joined = begun or number, joined + (" " + line if comment else line)
        if line.endswith("\\") and not comment and number < len(lines):
            joined = joined[:-1]
            continue
        found.append((begun, _COMMENT.sub("", joined).strip()))
        begun, joined = 0, ""
    return found


def _written(line: str, file: str, number: int) -> str:
    refuse = _Refusal(file, number, line)
    hashes = _HASHES_BEGIN.search(line)
    if hashes and _HASHES.fullmatch(line, hashes.start()):
        line = line[: hashes.start()].rstrip()
    if len(line) > _LINE_LENGTH or not line.isascii() or any(char < " " and char != "\t" for char in line):
        refuse("is too long, or holds a character that no requirement has")
    if line.startswith("-") or re.search(r"\s-", line):
        refuse("is an option of the installer", "Remove it: packages come from the platform's one index, as wheels.")
    if "$" in line:
        refuse("uses a variable of the environment", "Write its value.")
    before_marker = line.partition(";")[0]
    if _LINK.search(before_marker):
        refuse("takes a package from a URL", "Name a release that the package index has: `name==version`.")
    if _PATH.search(before_marker):
        refuse("takes a package from a path", "Put the package's own folder beside the app, or name a release: `name==version`.")
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError):
        refuse("is not a requirement")
    return _anew(requirement, refuse)


def _anew(requirement: Requirement, refuse: "_Refusal") -> str:
    if requirement.url is not None or any(each.operator == "===" for each in requirement.specifier):
        refuse("asks for a package in a way that is not read")
    extras = ",".join(sorted(canonicalize_name(extra) for extra in requirement.extras))
    line = f"{requirement.name}{f'[{extras}]' if extras else ''}{requirement.specifier}"
    if requirement.marker is None:
        return line
    marker = str(requirement.marker)
    if not _MARKER.fullmatch(marker):
        refuse("has a condition that is not read", 'Use conditions such as `python_version < "3.12"` or `sys_platform == "linux"`.')
    return f"{line} ; {marker}"


class _Refusal:
    """Raises for one line of one file."""

    def __init__(self, file: str, number: int, line: str) -> None:
        self._where = f"{file} line {number}"
        self._line = line[:80]

    def __call__(self, why: str, mend: str = _MEND) -> NoReturn:
        errors = [{"entry": self._where, "message": f"{self._line!r} {why}"}]
        raise Invalid("requirements_option", f"{self._where}: {self._line!r} {why}.", mend, errors=errors)
