"""Modelyard: upload a zip of a Python model app, get a live, authenticated prediction endpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    """`Client`, loaded when it is first asked for (PEP 562): the command line imports this package and often needs no HTTP client."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modelyard.client import Client  # noqa: PLC0415 - that is the point

    return Client
