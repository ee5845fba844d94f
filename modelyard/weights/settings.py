"""The settings of the built-in models."""

from pydantic import BaseModel, ConfigDict, Field

from modelyard.domain.weights import ENTRIES


class ModelsSettings(BaseModel):
    """Which models of our own are served, and where their weights come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    builtin: tuple[str, ...] = tuple(ENTRIES)
    """Served as `modelyard/NAME`, each once its weights are here; empty: none."""
    hub_url: str = Field(default="https://huggingface.co", pattern=r"^https?://[!-~]+$")
    """The hub that `modelyard models pull` asks."""
