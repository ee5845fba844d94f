"""The compose file of the local stack, as it is written: who is given what, and where it listens."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = {name for name, service in SERVICES.items() if str(service["image"]).startswith("modelyard/")}
ENGINE = re.compile(r"docker\.sock")
PUBLISHED = {"auth": "8000", "upload": "8001", "db": "5433", "kafka": "9092", "gateway": "8080"}


def test_the_builder_and_the_runner_alone_are_given_the_engine_and_nobody_calls_them() -> None:
    given = {name for name, service in SERVICES.items() if ENGINE.search(str(service.get("volumes", "")))}
    assert given == {"builder", "runner"}
    assert all("ports" not in SERVICES[name] for name in given)
    assert {name for name, service in SERVICES.items() if "group_add" in service} == given


def test_everything_listens_on_loopback_where_the_guide_has_it() -> None:
    told = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert {name: [port.rsplit(":", 1)[0] for port in ports] for name, ports in told.items()} == {
        name: [f"127.0.0.1:{port}"] for name, port in PUBLISHED.items()
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_may_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert not {"privileged", "cap_add", "devices"} & set(service)
    assert service.get("network_mode") in {None, "none"}
    assert service.get("pid") is None
    if name in OURS:
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    if service.get("restart", "no") != "no":
        assert "mem_limit" in service
        assert "healthcheck" in service


def test_no_secret_stands_in_it() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or name.endswith("_FILE"), name
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), value
