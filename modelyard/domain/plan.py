"""How a version is started: what the reader of the zip found, the limits it runs under, and its idle times."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024
GIB = 1024 * MIB


class Limits(BaseModel):
    """What one instance may use; verification runs under the same limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int = Field(default=GIB, ge=32 * MIB)
    cpus: float = Field(default=1.0, gt=0)
    pids: int = Field(default=256, ge=8)
    tmp_bytes: int = Field(default=256 * MIB, ge=MIB)
    app_bytes: int = Field(default=64 * MIB, ge=MIB)
    timeout_s: float = Field(default=60.0, gt=0)
    max_body_bytes: int = Field(default=100 * MIB, ge=1)
    start_deadline_s: float = Field(default=120.0, gt=0)


class Idle(BaseModel):
    """Seconds without a call after which an instance is frozen, and then stopped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    freeze_s: float = Field(default=60.0, ge=0)
    stop_s: float = Field(default=900.0, ge=0)


class Plan(BaseModel):
    """What was found in a zip, and so how its app is built and started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Literal["uvicorn", "gunicorn", "command"]
    target: str = ""
    """`module:object` for uvicorn and gunicorn; empty for a command."""
    command: tuple[str, ...] = ()
    """The words of the start command where `server` is `command`; `python` means the app's environment."""
    folder: str = ""
    """The folder inside the zip that becomes the working folder, empty for its root."""
    port: int = Field(default=8080, ge=1, le=65535)
    health: str = "/health"
    python: str | None = None
    requirements: tuple[str, ...] = ()
    """Requirement lines in the form `name[extra] op version ; marker`, read and written anew by us."""
    dependencies_from: str | None = None
    """The file that the requirements were read from."""
    framework: str = ""
    entry_from: str = ""
    """Where the entry was found: `modelyard.toml`, or the file that holds the object."""
    weights: tuple[str, ...] = ()
    """Entries of the platform's own list (`domain/weights.py`) that the app reads; the runtime mounts each, read-only."""
    notes: tuple[str, ...] = ()
    """What the reader says to the user beside what it found: ignored files, mends, warnings."""
    limits: Limits = Limits()
    idle: Idle = Idle()

    @property
    def summary(self) -> str:
        """One line for people: what was found, where, and the port."""
        what = f"{self.framework or 'app'} `{self.target}`" if self.target else f"command `{' '.join(self.command)}`"
        depends = self.dependencies_from or "no dependency file"
        return f"found: {what} in {self.entry_from}, {depends}, port {self.port}"
