"""Logs: one record a line, JSON off a terminal, readable on one; foreign text never breaks a line."""

import logging
import re
import sys

import structlog
from rich.console import Console
from structlog.typing import EventDict, WrappedLogger

LIMIT = 8192
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_TRACE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""A traceback keeps its line ends and tabs."""


def configure(level: str = "info") -> None:
    """Send every record of structlog and of the standard library to standard error."""
    on_terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _tame,
    ]
    # rich knows NO_COLOR, as the command line's own output does.
    shown = structlog.dev.ConsoleRenderer(colors=not Console(stderr=True).no_color)
    renderer: structlog.typing.Processor = shown if on_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "uvicorn.access", "alembic", "uvicorn.error"):
        logging.getLogger(noisy).setLevel("WARNING")


def _tame(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    # Names of uploads are foreign text: no control character of theirs reaches a terminal, no value fills the disk.
    for key, value in record.items():
        if isinstance(value, str):
            control, shown = (_CONTROL_IN_TRACE, value[-LIMIT:]) if key == "exception" else (_CONTROL, value[:LIMIT])
            record[key] = control.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)
    return record
