"""A `Builder` that builds in memory: instant, and steered step by step by the test."""

import hashlib
from collections import defaultdict
from collections.abc import Callable

from modelyard.domain.plan import Plan
from upload_service.builders import Boot, Built, Log, Source

CODE_BYTES = 1000
BUILT_BYTES = 50_000

Act = Callable[[Log], None]
"""What happens inside a step beside its own effect: it may log, wait, or raise."""


class FakeBuilder:
    """Keeps what it "unpacked" and "installed" as names; the same lock gives the same reference.

    Args:
        acts: What happens in a step, by its name (`unpack`, `lock`, `install`, `package`, `verify`); nothing where it is not named.
    """

    def __init__(self, runtime_name: str = "process") -> None:
        self.runtime_name = runtime_name
        self.acts: defaultdict[str, Act] = defaultdict(lambda: lambda _log: None)
        self.half_built = 0
        self.serving: dict[str, str | None] = {}
        self._code: set[str] = set()
        self._built: set[str] = set()

    def unpack(self, source: Source, plan: Plan, log: Log) -> None:
        """Note the version's code."""
        del plan
        assert source.archive.is_file()
        self._code.add(source.version_id)
        self.acts["unpack"](log)

    def lock(self, plan: Plan, log: Log) -> str:
        """The requirements themselves, one a line."""
        self.acts["lock"](log)
        return "".join(f"{line}\n" for line in plan.requirements)

    def reference(self, lock: str, source: Source) -> str:
        """The digest of the lock."""
        del source
        return hashlib.sha256(lock.encode()).hexdigest()[:40]

    def install(self, reference: str, lock: str, log: Log) -> Built:
        """Note the reference."""
        del lock
        self.acts["install"](log)
        self._built.add(reference)
        return Built(reference, BUILT_BYTES)

    def package(self, source: Source, built: Built, plan: Plan, log: Log) -> Built:
        """What was built."""
        del source, plan
        self.acts["package"](log)
        return built

    def verify(self, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
        """A boot on the plan's own port."""
        del source, built
        self.acts["verify"](log)
        return Boot(0.25, 1024, "127.0.0.1", plan.port)

    def settle(self, source: Source, built: Built, boot: Boot, plan: Plan, log: Log) -> str | None:
        """A container, where the runtime has any."""
        del built, boot, plan
        self.acts["settle"](log)
        return f"container-of-{source.version_id}" if self.runtime_name == "docker" else None

    def serve(self, label: str, version_id: str | None) -> None:
        """Note what serves."""
        self.serving[label] = version_id

    def remove_code(self, version_id: str) -> int:
        """Forget the code."""
        return _forget(self._code, version_id, CODE_BYTES)

    def remove(self, reference: str) -> int:
        """Forget what was built."""
        return _forget(self._built, reference, BUILT_BYTES)

    def usage(self) -> dict[str, int]:
        """What is noted."""
        return {"code": CODE_BYTES * len(self._code), "packages": BUILT_BYTES * len(self._built)}

    def empty_cache(self) -> int:
        """There is none."""
        return 0

    def references(self) -> list[str]:
        """What was built."""
        return sorted(self._built)

    def code(self) -> list[str]:
        """What was unpacked."""
        return sorted(self._code)

    def sweep(self) -> int:
        """Forget what is half-built, and return how many there were."""
        removed, self.half_built = self.half_built, 0
        return removed

    def close(self) -> None:
        """Nothing runs."""


def _forget(names: set[str], name: str, size_bytes: int) -> int:
    if name not in names:
        return 0
    names.remove(name)
    return size_bytes
