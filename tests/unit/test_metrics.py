"""What is counted: labels of few values, and nothing twice under threads."""

import threading

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.run import metrics


def samples() -> dict[tuple[str, tuple[str, ...]], float]:
    """Everything that was counted, by name and label values."""
    text = generate_latest(metrics.REGISTRY).decode()
    return {
        (sample.name, tuple(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_whatever_callers_send_the_labels_stay_few() -> None:
    for n in range(100, 1000):
        metrics.request_ended(f"METHOD-{n}", "/health", n, 0.001)
    found = {labels for name, labels in samples() if name == "http_server_request_duration_seconds_count" and "/health" in labels}

    assert {method for method, *_ in found} <= {"GET", metrics.OTHER}
    assert len({status for _, status, _ in found if status != metrics.OTHER}) < 70


def test_models_beyond_the_first_are_counted_together() -> None:
    for n in range(2 * metrics.MODELS):
        metrics.prediction_ended(f"model-{n}", "answered", 0.001)
    found = {labels[0]: value for (name, labels), value in samples().items() if name == "modelyard_predictions_total" and labels[0]}

    assert len(found) <= metrics.MODELS + 1
    assert sum(value for model, value in found.items() if model.startswith("model-") or model == metrics.OTHER) >= 2 * metrics.MODELS
    assert found[metrics.OTHER] >= metrics.MODELS


def test_many_threads_count_each_thing_once() -> None:
    before = samples()

    def count() -> None:
        for _ in range(1000):
            metrics.build_ended("succeeded", 1.0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = samples()

    for name, labels in (("modelyard_builds_total", ("succeeded",)), ("modelyard_build_duration_seconds_count", ())):
        assert after[name, labels] - before.get((name, labels), 0.0) == 8000


def test_names_are_as_prometheus_wants_them() -> None:
    for name, _ in samples():
        assert name.startswith(("modelyard_", "http_server_", "process_", "python_"))
        assert not name.endswith(("_ms", "_milliseconds", "_minutes"))
