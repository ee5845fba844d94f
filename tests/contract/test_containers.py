"""The images by the names that compose and tests ask for, official or stand-in: what they take, keep, and hold nothing of."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from bus_grounds import KafkaGround, deliver_until, record
from parts import engine, kafka, postgres
from parts.kafka import Kafka
from parts.postgres import Postgres
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer

from modelyard.bus.bus import PARTITIONS
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate

pytestmark = pytest.mark.docker

LEFT = "/etc/apt/apt.conf.d/*prox* /etc/ssl/private/* /usr/local/share/ca-certificates/* /var/log/* /root/.m2 /etc/machine-id /etc/pip.conf"
LOOK = f"cat /etc/apt/sources.list; ls -d {LEFT} 2>/dev/null; true"
IMAGES = [postgres.IMAGE, kafka.IMAGE]
BUILD = Path(__file__).parents[2] / "deploy" / "offline-images" / "build"


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresContainer]:
    """One with a user, a password and a database of its own, as a compose file would name them."""
    container = PostgresContainer(postgres.IMAGE, username="keeper", password="it's a secret", dbname="orchard", driver=None)
    engine.bind(container, postgres.PORT)
    with container:
        yield container


def connect(container: PostgresContainer, **differently: str) -> "psycopg2.extensions.connection":
    named = {"user": container.username, "password": container.password, "dbname": container.dbname}
    return psycopg2.connect(host="127.0.0.1", port=container.get_exposed_port(container.port), **(named | differently))


def test_postgres_has_the_user_the_password_and_the_database_of_its_environment(own_postgres: PostgresContainer) -> None:
    connection = connect(own_postgres)
    with connection.cursor() as cursor:
        cursor.execute("select current_user, current_database(), current_setting('server_version_num')::int / 10000")
        assert cursor.fetchone() == ("keeper", "orchard", 15)
    connection.close()


@pytest.mark.parametrize("differently", [{"password": "a guess"}, {"password": ""}, {"user": "postgres"}])
def test_postgres_lets_nobody_else_in(own_postgres: PostgresContainer, differently: dict[str, str]) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"authentication failed|no password supplied"):
        connect(own_postgres, **differently)


def test_postgres_without_a_password_does_not_start() -> None:
    container = DockerContainer(postgres.IMAGE)
    engine.bind(container, postgres.PORT)
    with container:
        ended = container.get_wrapped_container().wait(timeout=60)
        told = container.get_wrapped_container().logs().decode()

    assert ended["StatusCode"] == 1
    assert "POSTGRES_PASSWORD" in told


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_postgres_keeps_its_address_and_its_rows(postgres_container_server: Postgres, end: str) -> None:
    url = postgres_container_server.fresh()
    database = Database(url, Doorbell())
    with database.engine.begin() as connection:
        connection.exec_driver_sql("create table kept as select 7 as n")
    getattr(postgres_container_server, end)()
    postgres_container_server.start()

    database.wait_until_ready(30)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("select n from kept").scalar_one() == 7
    database.close()
    postgres_container_server.drop(url)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_kafka_keeps_its_address_and_its_records(kafka_container: Kafka, tmp_path: Path, end: str) -> None:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    database = Database(url, Doorbell())
    ground = KafkaGround(database, kafka_container.bootstrap)
    bus, seen = ground.bus(), list[str]()
    bus.publish([record(ground.topic, "k", "1")])
    ground.end(bus)
    getattr(kafka_container, end)()
    kafka_container.start()

    deliver_until(ground, ground.bus(), lambda got: seen.append(got.event_id), lambda: seen)
    assert seen == ["1"]
    assert ground.partitions() == PARTITIONS
    ground.close()
    database.close()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_that_is_there_is_left_as_it_is(image: str) -> None:
    before = told("image", "inspect", "--format", "{{.Id}}", image)
    subprocess.run([BUILD, image], check=True, capture_output=True, timeout=60)

    assert told("image", "inspect", "--format", "{{.Id}}", image) == before


@pytest.mark.parametrize("image", IMAGES)
def test_a_stand_in_holds_nothing_of_the_machine_that_built_it(image: str) -> None:
    if told("image", "inspect", "--format", '{{index .Config.Labels "modelyard.standin"}}', image) != "1":
        pytest.skip(f"{image} is the official one")
    environment = json.loads(told("image", "inspect", "--format", "{{json .Config.Env}}", image)) or []
    inside = told("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", LOOK).splitlines()

    assert {name.partition("=")[0] for name in environment} <= {"PATH", "LANG", "PGDATA"}
    assert inside == []


def told(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=60).stdout.strip()
