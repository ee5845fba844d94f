"""Export of spans over OTLP/HTTP, for whoever sets `otel.endpoint`; its library is loaded only then."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from modelyard import __version__
from modelyard.domain.errors import Invalid
from modelyard.run.tracing import Span, told_to

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

WAIT_S = 5.0
"""How long one answer of the collector, and at the end of the process all of them, may take."""
_PATH = "/v1/traces"


class OtelSettings(BaseModel):
    """Where spans go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = Field(default=None, pattern=r"https?://[^/]")
    """The collector's OTLP/HTTP address without a path, such as http://localhost:4318; spans are told to nobody where it is not set."""
    service: str = Field(default="modelyard", min_length=1)
    """The name under which they are found there."""


@contextmanager
def exporting(settings: OtelSettings, roles: Sequence[str]) -> Iterator[None]:
    """Send the spans of the block to the collector, in batches from a thread; a collector that is away loses them and holds up nothing.

    Args:
        roles: What this process does, told with each span.

    Raises:
        Invalid: `otel_missing`, the library is not installed.
    """
    if settings.endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - the extra `otel`
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as the line before
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as the line before
    except ImportError as error:
        raise Invalid(
            "otel_missing", "`otel.endpoint` is set, and OpenTelemetry is not installed.", "Run: pip install 'modelyard[otel]'"
        ) from error
    resource = Resource(
        {
            "service.name": settings.service,
            "service.version": __version__,
            "service.instance.id": f"{'+'.join(roles)}-{os.getpid()}",
            "process.pid": os.getpid(),
        }
    )
    batches = BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint.rstrip("/") + _PATH, timeout=WAIT_S))
    try:
        with told_to(lambda span: batches.on_end(_readable(span, resource))):
            yield
    finally:
        batches.force_flush(int(WAIT_S * 1000))
        batches.shutdown()  # type: ignore[no-untyped-call]  # of the library


def _readable(span: Span, resource: "Resource") -> "ReadableSpan":
    """The span as OpenTelemetry's exporters take it: our ids are kept, so that logs, events and spans agree."""
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - the extra `otel`
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 - as the line before
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415 - as the line before

    def place(span_id: str, *, remote: bool) -> SpanContext:
        return SpanContext(int(span.trace.trace_id, 16), int(span_id, 16), remote, TraceFlags(span.trace.flags & TraceFlags.SAMPLED))

    return ReadableSpan(
        span.name,
        place(span.trace.span_id, remote=False),
        place(span.parent, remote=True) if span.parent else None,
        resource,
        span.attributes,
        kind=SpanKind(span.kind - 1),  # the API counts from 0, the protocol from 1
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope("modelyard", __version__),
    )
