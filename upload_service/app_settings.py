"""Reads `modelyard.toml`, the settings that an app brings along."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import GIB, MIB, Idle, Limits
from modelyard.domain.weights import ENTRIES

FILE = "modelyard.toml"
LIMIT_BYTES = 64 * 1024

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(b|[kmgt]i?b?)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": GIB, "t": 1024 * GIB, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
_ENTRY = f"^{_DOTTED}:{_DOTTED}$"
_MOST_DOTS, _MOST_WRONG = 64, 10
_MOST_NUMBER = 2**53
"""Every whole number up to here is a floating-point number too, so that it can be compared and shown."""
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def _words(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise ValueError('must be one string, such as "python app.py --workers 2"')  # noqa: TRY004 - pydantic reads ValueError
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if any(set(word) <= set("();<>|&") for word in lexer if word):
        raise ValueError(f"is not read by a shell; write {f'sh -c {shlex.quote(text)}'!r} where you need one")
    words = tuple(shlex.split(text))
    if not words or not words[0]:
        raise ValueError("names no program")
    if _ASSIGNMENT.match(words[0]):
        raise ValueError("is not read by a shell; begin with `env` to set a variable")
    return words


def _bytes(size: object) -> object:
    """`512MiB`, `512m` and `1g` are powers of 1024 as Docker reads them; `512MB` is a power of 1000."""
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise ValueError('must be a size: bytes, or "512MiB", "1GiB", "1g"')  # noqa: TRY004 - pydantic reads ValueError
    if isinstance(size, int):
        return min(size, _MOST_NUMBER)
    found = _SIZE.fullmatch(size.strip())
    if not found:
        raise ValueError('must be a size: bytes, or "512MiB", "1GiB", "1g"')
    unit = (found[2] or "").lower()
    return int(float(found[1]) * _UNITS[unit[0] if unit.endswith(("i", "ib")) else unit])


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,199}", text) or "#" in text:
        raise ValueError("must be a path that begins with /, such as /health")
    return text


Bytes = Annotated[int, BeforeValidator(_bytes)]
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AppTable(_Table):
    """`[app]`: how the app is started.

    Args:
        command: The words of a command; no shell reads them.
        entry: `module:object`.
        server: What the object speaks, where its file does not show it.
        health: The path that is asked whether the app is ready.
        python: A version such as `3.12`, or a range such as `>=3.11,<3.13`.
    """

    command: Annotated[tuple[str, ...] | None, BeforeValidator(_words)] = None
    entry: str | None = Field(default=None, pattern=_ENTRY, max_length=200)
    server: Literal["asgi", "wsgi"] | None = None
    port: int | None = Field(default=None, ge=1, le=65535, strict=True)
    health: Annotated[str, AfterValidator(_path)] | None = None
    python: str | None = None

    @model_validator(mode="after")
    def _one_start(self) -> "AppTable":
        if self.command and self.entry:
            raise ValueError("write either command or entry")
        if self.server and not self.entry:
            raise ValueError("server belongs to entry")
        return self


class LimitsTable(_Table):
    """`[limits]`: what one instance may use; bytes, processors, seconds, bytes."""

    memory: Bytes | None = Field(default=None, ge=32 * MIB)
    cpus: Seconds | None = Field(default=None, gt=0)
    timeout_s: Seconds | None = Field(default=None, gt=0)
    max_body: Bytes | None = Field(default=None, ge=1)


class IdleTable(_Table):
    """`[idle]`: seconds without a call until the instance is frozen, and until it is stopped."""

    freeze_s: Seconds | None = Field(default=None, ge=0)
    stop_s: Seconds | None = Field(default=None, ge=0)


def _entries(use: object) -> object:
    names = [use] if isinstance(use, str) else use
    if not isinstance(names, list) or any(not isinstance(name, str) or name not in ENTRIES for name in names):
        # A path would reach what the platform does not share.
        raise ValueError(f"names an entry of the platform's list, never a path; known are {', '.join(ENTRIES)}")
    return tuple(dict.fromkeys(names))


class WeightsTable(_Table):
    """`[weights]`: which of the platform's weights the app reads; one name, or a list of them."""

    use: Annotated[tuple[str, ...], BeforeValidator(_entries)] = ()


class AppSettings(_Table):
    """All of `modelyard.toml`; what it does not say is None."""

    app: AppTable = AppTable()
    limits: LimitsTable = LimitsTable()
    idle: IdleTable = IdleTable()
    weights: WeightsTable = WeightsTable()


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that an app's own settings may ask for, as the platform's settings `ceilings.*` say."""

    memory_bytes: int = 4 * GIB
    cpus: float = 2.0
    timeout_s: float = 600.0
    max_body_bytes: int = GIB
    stop_s: float = 86_400.0


def read_app_settings(text: str) -> AppSettings:
    """The settings, each checked by itself; the platform's ceilings are not known here.

    Raises:
        Invalid: `app_settings_invalid`, naming the line or each `table.key` with what it may be.
    """
    try:
        content = parse_toml(text)
    except ValueError as error:
        raise refusal(FILE, str(error)) from None
    try:
        return AppSettings.model_validate(content)
    except ValidationError as error:
        wrong = [
            (".".join(str(part) for part in each["loc"]), _why(each["type"], each["msg"], each["loc"]))
            for each in error.errors()[:_MOST_WRONG]
        ]
        raise refusal(*wrong[0], also=wrong[1:]) from None


def parse_toml(text: str) -> dict[str, object]:
    """The content of a TOML file from an upload.

    Raises:
        ValueError: It cannot be read; says why.
    """
    # The parser's time grows with the square of the parts of a dotted key, and it has no limit for them.
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
        raise ValueError(f"has a line with more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
    except ValueError:
        raise ValueError("is not TOML: it holds a number of thousands of digits") from None


def limits_within(settings: AppSettings, ceilings: Ceilings) -> Limits:
    """The limits that the app asks for, the defaults where it asks for nothing.

    Raises:
        Invalid: `limit_above_ceiling`, naming the key, the ceiling and its setting.
    """
    own, default = settings.limits, Limits()
    return Limits(
        memory_bytes=int(_below("limits.memory", "memory_bytes", own.memory, default.memory_bytes, ceilings.memory_bytes)),
        cpus=_below("limits.cpus", "cpus", own.cpus, default.cpus, ceilings.cpus),
        timeout_s=_below("limits.timeout_s", "timeout_s", own.timeout_s, default.timeout_s, ceilings.timeout_s),
        max_body_bytes=int(_below("limits.max_body", "max_body_bytes", own.max_body, default.max_body_bytes, ceilings.max_body_bytes)),
    )


def idle_within(settings: AppSettings, ceilings: Ceilings) -> Idle:
    """The idle times that the app asks for; errors as `limits_within`."""
    default = Idle()
    freeze_s = default.freeze_s if settings.idle.freeze_s is None else settings.idle.freeze_s
    return Idle(freeze_s=freeze_s, stop_s=_below("idle.stop_s", "stop_s", settings.idle.stop_s, default.stop_s, ceilings.stop_s))


def _shown(value: float, setting: str) -> str:
    return f"{value / MIB:.15g} MiB" if setting.endswith("_bytes") else f"{value:g}"


def _below(field: str, setting: str, asked: float | None, default: float, ceiling: float) -> float:
    """What the app asks for, or the default where it asks for nothing; never above the ceiling."""
    if asked is None:
        return min(default, ceiling)
    if asked > ceiling:
        message = f"{FILE}: {field} is {_shown(asked, setting)}; the most here is {_shown(ceiling, setting)}."
        mend = f"Ask for less, or let the operator raise the setting `ceilings.{setting}`."
        raise Invalid("limit_above_ceiling", message, mend, errors=[{"field": field, "message": message}])
    return asked


def refusal(where: str, why: str, mend: str = f"Mend {FILE} and upload again.", also: list[tuple[str, str]] | None = None) -> Invalid:
    """The error `app_settings_invalid` for a `table.key`, naming the others that are wrong."""
    wrong = [(where, why), *(also or [])]
    message = "; ".join(f"{field} {reason}" for field, reason in wrong)
    prefix = "" if where == FILE else f"{FILE}: "
    raise Invalid(
        "app_settings_invalid", f"{prefix}{message}.", mend, errors=[{"field": field, "message": reason} for field, reason in wrong]
    )


def _why(kind: str, message: str, where: tuple[int | str, ...]) -> str:
    if kind == "extra_forbidden":
        tables: dict[str, type[BaseModel]] = {"app": AppTable, "limits": LimitsTable, "idle": IdleTable, "weights": WeightsTable}
        table = tables[str(where[0])] if len(where) > 1 else AppSettings
        return f"is not known; known are {', '.join(table.model_fields)}"
    if kind == "model_type":
        return f"must be a table: [{where[-1]}]"
    if where[-1] == "entry":
        return 'must be module:object, such as "app:app"'
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
