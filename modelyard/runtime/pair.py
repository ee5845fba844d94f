"""What an engine is told of a pair: the inlet, which alone has a way out, and the app, which has none."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.domain.plan import MIB
from modelyard.runtime import engine_names
from modelyard.runtime.command import Layout, variables
from modelyard.runtime.runtime import InstanceSpec, Listener, Role
from modelyard.runtime.seccomp_profile import profile

APP, INLET = "app", "inlet"
APP_USER = "65532:65532"
SOCKET_FOLDER = "/run/in"
"""Where an inlet finds its folder."""
SHARED_MEMORY_BYTES = 64 * MIB
LARGEST_FILE_BYTES = 1024 * MIB
OPEN_FILES = 1024
STOP_WITHIN_S = 10
INLET_MEMORY_BYTES = 64 * MIB
INLET_PIDS = 16
INLET_OPEN_FILES = 16384
OWN_PROCESSES = 2
"""The engine's init, and room for what ends while the next begins."""

_LOGS = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
_IPV6 = Path("/proc/sys/net/ipv6")
_FORMAT = 2
"""Grows with what this module tells an engine: pairs that were told otherwise are made anew at their next start."""


@dataclass(frozen=True)
class Pair:
    """One instance as two containers.

    Args:
        yard: Whose it is.
        inlet_image: The id of the inlet's image.
        inlet_user: `uid:gid` of the inlet, which owns its folder of the volume.
        folder: That folder as the engine's machine knows it.
        weights: The folder of the platform's weights there; None: there are none.
    """

    spec: InstanceSpec
    yard: str
    inlet_image: str
    inlet_user: str
    folder: str
    weights: Path | None = None

    @property
    def inlet_name(self) -> str:
        """The inlet's name in the engine."""
        return engine_names.container_name(self.yard, self.spec.name, INLET)

    @property
    def app_name(self) -> str:
        """The app's."""
        return engine_names.container_name(self.yard, self.spec.name, APP)

    @cached_property
    def digest(self) -> str:
        """Equal for two pairs of which one may stand for the other."""
        # Who builds and who runs make the same pair: the build's own marks are not part of it.
        told = asdict(replace(self.spec, build="", fence=0)) | {"plan": self.spec.plan.model_dump(mode="json")}
        own = [_FORMAT, self.inlet_image, self.inlet_user, self.folder, str(self.weights), told]
        return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def inlet(self) -> dict[str, Any]:
        """The inlet's settings, as `POST /containers/create` takes them."""
        to = expected(self.spec)
        mount = {"Type": "bind", "Source": self.folder, "Target": SOCKET_FOLDER}
        host = {
            **_confined(),
            "NetworkMode": "none",
            "Sysctls": _loopback(),
            "Mounts": [mount],
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=1m,mode=1777"},  # noqa: S108 - the container's own
            "PidsLimit": INLET_PIDS,
            "Ulimits": _ulimits(nofile=INLET_OPEN_FILES, core=0),
            **_memory(INLET_MEMORY_BYTES),
        }
        return {
            "Image": self.inlet_image,
            "User": self.inlet_user,
            "Cmd": ["serve", to.host, str(to.port)],
            "Labels": self._labels(INLET),
            "StopTimeout": STOP_WITHIN_S,
            "HostConfig": host,
        }

    def app(self, inlet: str) -> dict[str, Any]:
        """The app's settings; what it runs stands in its image.

        Args:
            inlet: The inlet's id: its network is the app's.
        """
        plan = self.spec.plan
        limits, told = plan.limits, variables(plan, plan.port, self.spec.version_id, label=self.spec.owner_label)
        host = {
            **_confined(),
            "NetworkMode": f"container:{inlet}",
            "Init": True,
            "ShmSize": SHARED_MEMORY_BYTES,
            "Tmpfs": {
                Layout().scratch: f"rw,noexec,nosuid,nodev,size={limits.tmp_bytes},mode=1777",
                # Wheels bring libraries, and an app may carry its own: they are mapped from here.
                Layout().app: f"rw,exec,nosuid,nodev,size={limits.app_bytes},mode=0755,uid=65532,gid=65532",
            },
            "NanoCpus": int(limits.cpus * 1e9),
            "PidsLimit": limits.pids + OWN_PROCESSES,
            "Ulimits": _ulimits(nofile=OPEN_FILES, core=0, fsize=LARGEST_FILE_BYTES),
            "Mounts": self._weights(),
            **_memory(limits.memory_bytes),
        }
        return {
            "Image": engine_names.code_image(self.yard, self.spec.version_id),
            "User": APP_USER,
            "Env": [f"{name}={value}" for name, value in told.items()],
            "Labels": self._labels(APP),
            "StopTimeout": STOP_WITHIN_S,
            "HostConfig": host,
        }

    def _weights(self) -> list[dict[str, Any]]:
        if self.weights is None:
            return []
        return [
            {"Type": "bind", "Source": str(self.weights / name), "Target": f"{Layout().weights}/{name}", "ReadOnly": True}
            for name in self.spec.plan.weights
        ]

    def _labels(self, part: str) -> dict[str, str]:
        spec = self.spec
        role = part if spec.role is Role.APP else str(spec.role)
        told = {
            engine_names.YARD: self.yard,
            engine_names.ROLE: role,
            engine_names.PART: part,
            engine_names.NAME: spec.name,
            engine_names.VERSION: spec.version_id,
            engine_names.MODEL: spec.owner_label,
            engine_names.SPEC: self.digest,
        }
        return told | ({engine_names.BUILD: spec.build, engine_names.FENCE: str(spec.fence)} if spec.build else {})


def expected(spec: InstanceSpec) -> Listener:
    """Where the app is expected to listen: where its verification found it, else where its plan says."""
    return spec.listens or Listener("127.0.0.1", spec.plan.port)


def _loopback() -> dict[str, str]:
    """Engines switch IPv6 off where there is no network: on loopback an app may well listen on it."""
    return {f"net.ipv6.conf.{name}.disable_ipv6": "0" for name in ("all", "lo")} if _IPV6.exists() else {}


def _confined() -> dict[str, Any]:
    """What both halves are denied."""
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={profile()}"],
        "ReadonlyRootfs": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _LOGS,
    }


def _memory(limit_bytes: int) -> Mapping[str, int]:
    return {"Memory": limit_bytes, "MemorySwap": limit_bytes, "MemorySwappiness": 0}


def _ulimits(**limits: int) -> list[dict[str, Any]]:
    return [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in limits.items()]
