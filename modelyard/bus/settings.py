"""The settings of Kafka."""

from pydantic import BaseModel, ConfigDict, Field


class KafkaSettings(BaseModel):
    """Where Kafka is, for `bus = "kafka"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: str = Field(default="localhost:9092", min_length=3)
    """`host:port`, several separated by commas."""
    replication: int = Field(default=1, ge=1)
    """How many brokers keep each record of the topics that Modelyard makes."""
