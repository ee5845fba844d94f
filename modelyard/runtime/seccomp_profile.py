"""The list of `seccomp.py` as a container engine reads it.

Source: the format of profiles in Docker's documentation ("Seccomp security profiles for Docker"); errno numbers are Linux's.
An engine compares whole registers where the filter of the sandbox compares the lower half: the comparisons are made so that both
refuse the same, whatever an app puts into the upper half.
"""

import errno
import json
from functools import cache
from typing import Any

from modelyard.runtime.seccomp import FAMILIES, NEW_NAMESPACES, REFUSED, REFUSED_ON_X86, TERMINAL_INPUT

_LOW_HALF = 0xFFFFFFFF
_HIGHEST_FAMILY = 64


@cache
def profile() -> str:
    """The profile, as the value of the security option `seccomp`."""
    refused = [
        _rule([*REFUSED, *REFUSED_ON_X86], errno.EPERM),
        # Its flags lie in memory, where a filter cannot look; the C library then takes clone.
        _rule(["clone3"], errno.ENOSYS),
        *(_rule(["clone"], errno.EPERM, _masked(0, bit, bit)) for bit in _bits(NEW_NAMESPACES)),
        *(_rule(["ioctl"], errno.EPERM, _masked(1, _LOW_HALF, request)) for request in TERMINAL_INPUT),
        *(_rule(["socket"], errno.EAFNOSUPPORT, _masked(0, _LOW_HALF, family)) for family in _foreign_families()),
        _rule(["socket"], errno.EAFNOSUPPORT, {"index": 0, "value": _HIGHEST_FAMILY, "op": "SCMP_CMP_GE"}),
    ]
    # Another architecture's numbers mean other calls: what is not named here is killed.
    native: list[dict[str, Any]] = [{"architecture": name, "subArchitectures": []} for name in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "archMap": native, "syscalls": refused}, separators=(",", ":"))


def _rule(names: list[str], number: int, *comparisons: dict[str, Any]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": [*comparisons]}


def _masked(argument: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _bits(mask: int) -> list[int]:
    return [1 << n for n in range(mask.bit_length()) if mask >> n & 1]


def _foreign_families() -> list[int]:
    return [number for number in range(_HIGHEST_FAMILY) if number not in FAMILIES]
