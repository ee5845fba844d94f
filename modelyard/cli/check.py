"""One line of what the doctor says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do where it is not well."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""
