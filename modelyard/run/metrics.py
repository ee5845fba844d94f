"""What a process counts, for Prometheus: every name and every label that there is, each label of few values."""

import threading
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, Info, PlatformCollector, ProcessCollector

from modelyard import __version__

REGISTRY = CollectorRegistry()
"""Of this process: counters are exact under threads, and two processes never count the same thing."""
OTHER = "_OTHER"
"""The value of a label for whatever is not known (as OpenTelemetry's `http.request.method` has it)."""
MODELS = 200
"""Models that are counted each by itself, those that are called first; all later ones together are `_OTHER`."""
SERVER_ERROR = 500
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_STATUSES = frozenset(int(status) for status in HTTPStatus)
_CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_WORK_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

# Named as OpenTelemetry's semantic conventions have it, in the spelling of Prometheus.
_requests = Histogram(
    "http_server_request_duration_seconds",
    "Requests from their head to the end of their answer, by the template of their route.",
    ("http_request_method", "http_route", "http_response_status_code"),
    registry=REGISTRY,
    buckets=_CALL_S,
)
_predictions = Counter(
    "modelyard_predictions",
    "Calls of models by model id and outcome; no model where none was reached.",
    ("model", "outcome"),
    registry=REGISTRY,
)
_prediction_s = Histogram(
    "modelyard_prediction_duration_seconds", "Calls that an app answered, to the end of its answer.", registry=REGISTRY, buckets=_CALL_S
)
_starts = Counter("modelyard_starts", "Starts of instances by outcome.", ("outcome",), registry=REGISTRY)
_start_s = Histogram(
    "modelyard_start_phase_duration_seconds", "Phases of starts that ended well.", ("phase",), registry=REGISTRY, buckets=_WORK_S
)
_builds = Counter("modelyard_builds", "Builds by outcome.", ("outcome",), registry=REGISTRY)
_build_s = Histogram("modelyard_build_duration_seconds", "Builds from their claim to their end.", registry=REGISTRY, buckets=_WORK_S)
_attempts = Counter(
    "modelyard_event_attempts", "Events that a consumer group tried to take, by outcome.", ("group", "outcome"), registry=REGISTRY
)
_dead_letters = Counter("modelyard_dead_letters", "Events that a consumer group gave up.", ("group",), registry=REGISTRY)
_lag_s = Histogram(
    "modelyard_event_lag_seconds",
    "From what happened to its effect in a consumer group.",
    ("group",),
    registry=REGISTRY,
    buckets=(0.01, *_WORK_S),
)
Info("modelyard_build", "Which Modelyard this is.", registry=REGISTRY).info({"version": __version__})
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_models: set[str] = set()
_guard = threading.Lock()


def request_ended(method: str, route: str, status: int, took_s: float) -> None:
    """Count a request.

    Args:
        route: The template, such as `/builds/{build_id}`; never a path.
        status: 0 where the caller left before there was one.
    """
    _request(method if method in _METHODS else OTHER, route, status if status in _STATUSES else 0).observe(took_s)


def prediction_ended(model_id: str, outcome: str, took_s: float | None) -> None:
    """Count a call of a model.

    Args:
        model_id: Empty where the call reached none.
        outcome: `answered`, `app_error` (its status is 5xx), `refused`, `not_ready`, `bad_answer`, `too_slow`,
            `unavailable`, `internal`, `cut` or `left`.
        took_s: None for a WebSocket, which is open for as long as both sides like.
    """
    _prediction(_few(model_id), outcome).inc()
    if took_s is not None and outcome in {"answered", "app_error"}:
        _prediction_s.observe(took_s)


def start_ended(outcome: str, phases_s: Mapping[str, float]) -> None:
    """Count a start of an instance.

    Args:
        outcome: `started`, `thawed` or `failed`.
        phases_s: Seconds of `queue`, `create`, `boot`, `ready` or `thaw`.
    """
    _starts.labels(outcome).inc()
    for phase, seconds in phases_s.items():
        _start_s.labels(phase).observe(seconds)


def build_ended(outcome: str, took_s: float) -> None:
    """Count a build: `succeeded`, `failed`, `broke` or `given_back`."""
    _builds.labels(outcome).inc()
    _build_s.observe(took_s)


def event_tried(group: str, outcome: str) -> None:
    """Count one try to take an event: `taken`, `failed` or `put_off`."""
    _attempts.labels(group, outcome).inc()


def event_taken(group: str, lag_s: float) -> None:
    """Note how long after it happened an event had its effect."""
    _lag_s.labels(group).observe(max(0.0, lag_s))


def event_given_up(group: str) -> None:
    """Count a dead letter."""
    _dead_letters.labels(group).inc()


@cache
def _request(method: str, route: str, status: int) -> Histogram:
    # Looked up at every request: kept, as the library's own look-up costs more than the counting.
    return _requests.labels(method, route, str(status) if status else OTHER)


@cache
def _prediction(model: str, outcome: str) -> Counter:
    return _predictions.labels(model, outcome)


def _few(model_id: str) -> str:
    if model_id in _models or not model_id:
        return model_id
    with _guard:
        if len(_models) < MODELS:
            _models.add(model_id)
        return model_id if model_id in _models else OTHER
