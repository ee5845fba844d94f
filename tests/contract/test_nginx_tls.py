"""The gateway on nginx with a certificate: the same calls, by HTTPS alone."""

import datetime as dt
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from door_apps import DEADLINE_S, ok, read_until
from door_nginx import NginxStage
from door_stage import OWN_HOST

from gateway.settings import DoorSettings

pytestmark = pytest.mark.nginx

SETTINGS = DoorSettings(absent_s=30.0)
NAMES = [x509.DNSName("localhost"), x509.DNSName("*.apps.localhost"), x509.IPAddress(ip_address("127.0.0.1"))]


class TlsStage(NginxStage):
    """See `NginxStage`; whoever calls it trusts its certificate, and no other.

    Args:
        folder: Where the certificate and its key lie.
    """

    def __init__(self, folder: Path) -> None:
        certificate, key = made_certificate(folder)
        self.trusting = ssl.create_default_context(cafile=str(certificate))
        super().__init__(SETTINGS, CERTIFICATE=str(certificate), KEY=str(key))

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        self.told_to_service = dict(scope["headers"])
        await super()._upload(scope, receive, send)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=DEADLINE_S, context=self.trusting)


def made_certificate(folder: Path) -> tuple[Path, Path]:
    """The files of a certificate that signs itself, and of its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsStage]:
    server = TlsStage(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


def test_a_call_with_a_token_passes_and_the_app_is_told_how_it_came(stage: TlsStage) -> None:
    app = stage.deploy(ok(head=f"Location: https://127.0.0.1:{stage.port}/next\r\n".encode()))
    answer = stage.call("/x", "POST", b"hello")
    assert (answer.status, answer.body) == (200, b"ok")
    assert app.requests[-1].get("x-forwarded-proto") == ["https"]
    assert app.requests[-1].get("authorization") == []
    # What points at the origin that was called gets the prefix; the scheme is part of an origin.
    assert answer.get("location") == ["/m/ann/iris/next"]
    assert stage.call("/", Authorization="Bearer x").status == 401


def test_a_page_of_this_origin_may_call_and_one_of_the_same_name_without_tls_may_not(stage: TlsStage) -> None:
    stage.deploy(ok())
    assert stage.call("/", "POST", b"x", Origin=f"https://127.0.0.1:{stage.port}").status == 200
    assert stage.call("/", "POST", b"x", Origin=f"http://127.0.0.1:{stage.port}").code == "cross_site"


def test_a_models_own_host_answers_its_cookie(stage: TlsStage) -> None:
    app = stage.deploy(ok())
    assert stage.call_own("/").status == 200
    assert app.requests[-1].get("x-forwarded-host") == [f"{OWN_HOST}:{stage.port}"]


def test_services_are_told_that_the_page_came_by_tls_whatever_the_caller_says(stage: TlsStage) -> None:
    connection = stage.connect()
    connection.request("GET", "/upload", headers={**stage.sends, "X-Modelyard-Scheme": "http"})
    connection.getresponse().read()
    connection.close()
    assert stage.told_to_service[b"x-modelyard-scheme"] == b"https"


def test_the_connection_is_kept_for_many_calls(stage: TlsStage) -> None:
    stage.deploy(ok())
    connection = stage.connect()
    for _ in range(3):
        connection.request("GET", "/m/ann/iris/", headers=dict(stage.sends))
        answer = connection.getresponse()
        assert (answer.status, answer.version, answer.read()) == (200, 11, b"ok")
    connection.close()


def test_a_call_without_tls_is_refused_and_reaches_nothing(stage: TlsStage) -> None:
    app = stage.deploy(ok())
    with stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as conn:
        told = read_until(conn, b"\r\n\r\n")
        while piece := conn.recv(65536):
            told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 400 "), json.loads(body)["code"], app.requests) == (True, "malformed", [])


def test_old_protocols_are_not_spoken(stage: TlsStage) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", stage.port), timeout=DEADLINE_S) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)
