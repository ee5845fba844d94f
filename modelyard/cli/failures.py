"""How a command fails: one exception that carries the exit code, the reason and the mend."""

from collections.abc import Mapping
from enum import IntEnum

from modelyard.domain.errors import Kind, ModelyardError


class ExitCode(IntEnum):
    """What a script may rely on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    NOT_READY = 5
    INTERRUPTED = 130


_BY_KIND: Mapping[Kind, ExitCode] = {
    Kind.NOT_FOUND: ExitCode.NOT_FOUND,
    Kind.CONFLICT: ExitCode.CONFLICT,
    Kind.NOT_READY: ExitCode.NOT_READY,
    Kind.UNAVAILABLE: ExitCode.NOT_READY,
    Kind.INVALID: ExitCode.USAGE,
    Kind.MALFORMED: ExitCode.USAGE,
}
_BY_STATUS: Mapping[int, ExitCode] = {
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    503: ExitCode.NOT_READY,
}


class Failure(Exception):
    """A command ends here.

    Args:
        exit_code: What the process ends with.
        code: Stable identifier, `snake_case`.
        message: What went wrong.
        mend: What to do about it, one imperative sentence.
        extra: Further members of the answer under `--json`.
    """

    def __init__(self, exit_code: ExitCode, code: str, message: str, mend: str, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.message = message
        self.mend = mend
        self.extra = dict(extra or {})


def from_domain(error: ModelyardError) -> Failure:
    """The failure of an error that this process itself raised, not a server."""
    exit_code = _BY_KIND.get(error.kind, ExitCode.FAILED)
    extra = error.extra | ({"errors": list(error.errors)} if error.errors else {})
    return Failure(exit_code, error.code, error.message, error.mend or "Run `modelyard doctor`.", extra)


def from_status(status: int) -> ExitCode:
    """The exit code of a server's refusal."""
    return _BY_STATUS.get(status, ExitCode.FAILED)


def from_unforeseen(error: Exception) -> Failure:
    """The failure of what nobody thought of: a bug, or this machine's trouble."""
    if isinstance(error, OSError):
        return Failure(ExitCode.FAILED, "system_refused", f"The system refused: {error}", "Run `modelyard doctor`.")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})" if trace is not None else ""
    message = f"Modelyard itself failed: {type(error).__name__}: {error}{place}"
    return Failure(ExitCode.FAILED, "internal", message, "Run `modelyard doctor`, and report this line if all is well there.")
