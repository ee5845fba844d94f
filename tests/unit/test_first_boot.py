"""The first boot of a version, where the machine itself is what fails."""

from pathlib import Path

import pytest
from parts.thread_runtime import ThreadRuntime

from modelyard.domain.plan import Plan
from modelyard.runtime.runtime import InstanceSpec, StartError
from upload_service.builders import BuildError, Built, Source
from upload_service.first_boot import first_boot


class Unheard:
    """The log of a build that nobody reads and nobody ends."""

    def __call__(self, *lines: str) -> None:
        """See `Log`."""

    def check(self) -> None:
        """See `Log`."""


class NothingMade(ThreadRuntime):
    """Refuses to make an instance at all."""

    def create(self, spec: InstanceSpec) -> None:
        raise StartError(f"no room for {spec.name}")


class NothingStarted(ThreadRuntime):
    """Makes instances, and starts none."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = True


@pytest.mark.parametrize(("runtime", "why"), [(NothingMade(), "no room for verify-v1"), (NothingStarted(), "no namespaces")])
def test_a_machine_that_cannot_start_it_ends_the_build_in_words(runtime: ThreadRuntime, why: str, tmp_path: Path) -> None:
    source, plan = Source("v1", tmp_path / "zip", "ann/iris", 1), Plan(server="command", command=("python", "app.py"))
    with pytest.raises(BuildError, match=why) as refused:
        first_boot(runtime, source, Built("r", 1), plan, Unheard())
    assert (refused.value.code, refused.value.mend) == ("sandbox_failed", "Run `modelyard doctor`.")
    assert runtime.actual() == []
