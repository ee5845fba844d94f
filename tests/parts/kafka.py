"""Starts a real Kafka for tests: the official image where a Docker engine runs, else a Java process; both look the same."""

import fcntl
import importlib.util
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from parts import engine
from platformdirs import user_cache_path

VERSION = "3.9.1"
IMAGE = f"apache/kafka:{VERSION}"
UP_S = 60.0
DOWN_S = 30.0
CLUSTER = "bW9kZWx5YXJkLXRlc3RzLQ"
"""Any 16 bytes in base64 do."""

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>modelyard</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A broker that was killed may come back once its old session is over.
    "broker.heartbeat.interval.ms": "300",
    "broker.session.timeout.ms": "1500",
}


class Kafka(Protocol):
    """One broker on loopback that keeps its address and its records over stops and kills."""

    bootstrap: str
    """`host:port`, as clients take it."""

    def start(self) -> None:
        """Let it run, and return when it answers."""

    def stop(self) -> None:
        """End it in order, and return when it has ended."""

    def kill(self) -> None:
        """End it without a warning, as a power cut would."""


def missing() -> str:
    """What this machine lacks for it; empty where it lacks nothing."""
    if importlib.util.find_spec("confluent_kafka") is None:
        return "confluent-kafka is not installed (pip install modelyard[kafka])"
    if not engine.missing(IMAGE):
        return ""
    if not shutil.which("java"):
        return f"neither a Docker engine with {IMAGE} nor Java 17 is there"
    if not _libraries().is_dir() and not shutil.which("mvn"):
        return "Maven, which fetches it for Java, is not installed"
    return ""


@contextmanager
def running() -> Iterator[Kafka]:
    """A broker of one's own for the length of the block."""
    if not engine.missing(IMAGE):
        with contained() as container:
            yield container
        return
    with tempfile.TemporaryDirectory(prefix="my-kafka-") as folder:
        kafka = KafkaProcess(Path(folder))
        try:
            kafka.start()
            yield kafka
        finally:
            kafka.remove()


@contextmanager
def contained() -> Iterator[Kafka]:
    """A broker in a container for the length of the block."""
    kafka = KafkaContainer()
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.remove()


class KafkaProcess:
    """A broker as a Java process.

    Args:
        folder: Empty; holds its settings, its records and its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port, controller = engine.free_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        self._settings = folder / "server.properties"
        here = {
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(folder / "records"),
        }
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in (SETTINGS | here).items()))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Format its folder where that was not done yet, run it, and return when it answers."""
        if not (self._folder / "records").is_dir():
            words = _java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._settings))
            subprocess.run(words, check=True, capture_output=True, timeout=UP_S)
        with self._log() as log:
            # A test run that is killed takes its broker along; `exec` keeps the pid.
            words = ["setpriv", "--pdeathsig", "SIGKILL", *_java("-Xmx512m", "-XX:TieredStopAtLevel=1", "kafka.Kafka", str(self._settings))]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        _wait_until_it_answers(self.bootstrap, self._ended)

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End it for good; its folder is the caller's."""
        self.kill()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(DOWN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _log(self) -> IO[bytes]:
        return (self._folder / "kafka.log").open("ab")

    def _ended(self) -> str:
        if self._process is None or self._process.poll() is None:
            return ""
        return (self._folder / "kafka.log").read_text()[-2000:]


class KafkaContainer:
    """A broker in a container: the official image, or the stand-in of the same name."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where an engine runs

        container = DockerContainer(IMAGE)
        port = engine.bind(container, 9092)
        self.bootstrap = f"127.0.0.1:{port}"
        here = {
            "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.quorum.voters": "1@127.0.0.1:9093",
        }
        for name, value in (SETTINGS | here).items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self._container = container
        self._made = False

    def start(self) -> None:
        """Make the container or start it again, and return when it answers."""
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        _wait_until_it_answers(self.bootstrap, lambda: "")

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self._container.get_wrapped_container().stop(timeout=int(DOWN_S))

    def kill(self) -> None:
        """End it at once."""
        self._container.get_wrapped_container().kill()

    def remove(self) -> None:
        """Remove the container with its records."""
        if self._made:
            self._container.stop()


def _libraries() -> Path:
    return user_cache_path("modelyard-tests") / f"kafka-{VERSION}"


def _java(*words: str) -> list[str]:
    return ["java", "-cp", f"{_fetched()}/*", *words]


def _fetched() -> Path:
    """The folder of jars, fetched once a user; whoever else needs them meanwhile waits."""
    libraries = _libraries()
    libraries.parent.mkdir(parents=True, exist_ok=True)
    with (libraries.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libraries.is_dir():
            with tempfile.TemporaryDirectory(dir=libraries.parent) as folder:
                Path(folder, "pom.xml").write_text(POM)
                words = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"]
                subprocess.run(words, check=True, cwd=folder, timeout=600, capture_output=True)
                Path(folder, "jars").rename(libraries)
    return libraries


def _wait_until_it_answers(bootstrap: str, ended: Callable[[], str]) -> None:
    from confluent_kafka import KafkaException  # noqa: PLC0415 - `missing` is asked where the client may be absent
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - as the line before

    deadline = time.monotonic() + UP_S
    between = threading.Event()
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    while True:
        try:
            admin.list_topics(timeout=1)
        except KafkaException as error:
            if words := ended():
                raise RuntimeError(f"Kafka ended while it started: {words}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"Kafka did not answer at {bootstrap} within {UP_S:.0f} s") from error
            between.wait(0.05)
        else:
            return
