"""How a process uses a container engine."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from modelyard.runtime.runtime import Role


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """How this process uses an engine.

    Args:
        yard: Whose containers these are.
        output: Where the output of each instance is kept; made where it is missing.
        inlet_image: The inlet's image, by tag or id.
        volume: The volume of the sockets.
        seen_at: Where this process and the front door see that volume; None: where the engine's machine has it.
        weights: The platform's weights, in a folder named by each entry, as this process sees them; None: there are none.
        weights_at: The same folder as the engine's machine has it.
        warm_inlets: How many inlets wait for models that do not run.
        roles: The instances that this process acts on; others it only lists.
        outlived: Whether instances go on when this process ends.
        fetch: Brings an image that the engine lacks, by its tag; None: there is nowhere to fetch it from.
    """

    yard: str
    output: Path
    inlet_image: str
    volume: str
    seen_at: Path | None = None
    weights: Path | None = None
    weights_at: Path | None = None
    warm_inlets: int = 32
    roles: Collection[Role] = tuple(Role)
    outlived: bool = True
    fetch: Callable[[str], None] | None = None
