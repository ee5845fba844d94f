"""Starts that must not happen: each bad configuration is refused before anything answers, and says why."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner

from modelyard import embedded
from modelyard.cli.main import app
from modelyard.domain.api_keys import new_key
from modelyard.domain.errors import ModelyardError
from modelyard.run.settings import load_settings

GOOD_SECRET = "Zk3v9QpL7xW2mT8rB5nY1cD6fH4jS0aE"

Spoil = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path, blank_database: Path) -> Path:
    """A data folder that a server would start on."""
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    shutil.copy(blank_database, made / "modelyard.db")
    write(made / "owner.token", new_key().text)
    return made


def write(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)


def toml(text: str, mode: int = 0o600) -> Spoil:
    return lambda folder: write(folder / "settings.toml", text, mode)


def secret(text: str) -> Spoil:
    return toml(f'[auth]\nsecret = "{text}"\n')


def file(name: str, text: str, mode: int = 0o600) -> Spoil:
    return lambda folder: write(folder / name, text, mode)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, mode: int = 0o600, how: KeySerializationEncryption | None = None) -> Spoil:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how or NoEncryption())
    return lambda folder: write(folder / "keys" / "01990000-0000-7000-8000-000000000001.pem", text, mode)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def linked_key(folder: Path) -> None:
    pem(p256())(folder)
    path = next((folder / "keys").glob("*.pem"))
    (path.rename(folder / "elsewhere.pem")).chmod(0o600)
    path.symlink_to(folder / "elsewhere.pem")


def shared_folder(folder: Path) -> None:
    folder.chmod(0o755)


def shared_keys(folder: Path) -> None:
    pem(p256())(folder)
    (folder / "keys").chmod(0o750)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "the secret of an example": (secret("change-me-to-a-long-random-string-please"), "secret_weak"),
    "the secret of a manual": (secret("my-super-secret-signing-key-for-modelyard"), "secret_weak"),
    "a secret that repeats itself": (secret("Zk3v9QpL" * 5), "secret_weak"),
    "a secret of one character": (secret("a" * 64), "secret_weak"),
    "a short secret": (secret(GOOD_SECRET[:31]), "secret_short"),
    "an empty secret": (secret(""), "secret_short"),
    "a secret in a file that all can read": (toml(f'[auth]\nsecret = "{GOOD_SECRET}"\n', 0o644), "secret_exposed"),
    "a kept secret that all can read": (file("keys/server.secret", GOOD_SECRET, 0o644), "secret_exposed"),
    "a kept secret that was cut": (file("keys/server.secret", GOOD_SECRET[:8]), "secret_short"),
    "all addresses without expose": (toml('host = "0.0.0.0"\n'), "address_exposed"),
    "all IPv6 addresses without expose": (toml('host = "::"\n'), "address_exposed"),
    "an address of the network without expose": (toml('host = "192.0.2.1"\n'), "address_exposed"),
    "an owner's key that all can read": (lambda folder: (folder / "owner.token").chmod(0o644), "owner_token_unsafe"),
    "an owner's key that its group can read": (lambda folder: (folder / "owner.token").chmod(0o640), "owner_token_unsafe"),
    "an owner's key that is none": (file("owner.token", "my_token"), "owner_token_broken"),
    "an owner's key that is mistyped": (file("owner.token", new_key().text[:-1] + "!"), "owner_token_broken"),
    "an empty owner's key": (file("owner.token", ""), "owner_token_broken"),
    "a data folder that others enter": (shared_folder, "data_folder_shared"),
    "signing keys in a folder that others enter": (shared_keys, "signing_key_unsafe"),
    "a signing key that all can read": (pem(p256(), 0o644), "signing_key_unsafe"),
    "a signing key of another curve": (pem(ec.generate_private_key(ec.SECP384R1())), "signing_key_weak"),
    "a signing key of RSA": (pem(rsa.generate_private_key(65537, 2048)), "signing_key_weak"),
    "a signing key that can be guessed": (pem(ec.derive_private_key(1, ec.SECP256R1())), "signing_key_weak"),
    "a signing key behind a passphrase": (pem(p256(), how=BestAvailableEncryption(b"phrase")), "signing_key_broken"),
    "a signing key that is a link": (linked_key, "signing_key_broken"),
    "a signing key that is none": (file("keys/01990000-0000-7000-8000-000000000001.pem", "no key"), "signing_key_broken"),
    "apps on a name of one part": (toml('apps_domain = "localhost"\n'), "setting_invalid"),
    "apps on an address": (toml('apps_domain = "127.0.0.1"\n'), "setting_invalid"),
    "apps on a URL": (toml('apps_domain = "https://apps.example.com"\n'), "setting_invalid"),
    "the console among the apps": (toml('hosts = ["console.apps.localhost"]\n'), "setting_invalid"),
    "a host that is no address": (toml('host = "everywhere"\n'), "setting_invalid"),
    "sign-up for nobody knows whom": (toml('[auth]\nsignup = "friends"\n'), "setting_invalid"),
    "access tokens for a day": (toml("[auth]\naccess_s = 86400\n"), "setting_invalid"),
    "no limit at all": (toml("[limits]\nanonymous_per_minute = 0\n"), "setting_invalid"),
    "a setting that is none": (toml('secrett = "x"\n'), "setting_invalid"),
    "settings that are no TOML": (toml("port = \n"), "setting_invalid"),
}


def started(folder: Path) -> str:
    with embedded.started(load_settings(folder, port=0, log_level="error")) as running:
        return running.url


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_configuration_is_refused_and_says_why(folder: Path, name: str) -> None:
    spoil, code = REFUSED[name]
    spoil(folder)

    with pytest.raises(ModelyardError) as refused:
        started(folder)

    error = refused.value
    assert error.code == code, error.message
    assert error.mend
    assert not (folder / "server.json").exists()
    assert GOOD_SECRET[:8] not in error.message + error.mend
    assert "PRIVATE" not in error.message


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) >= 20


def test_the_same_folder_without_a_flaw_starts_and_so_it_does_with_a_good_secret(folder: Path) -> None:
    assert started(folder).startswith("http://127.0.0.1:")
    secret(GOOD_SECRET)(folder)
    assert started(folder).startswith("http://127.0.0.1:")


def test_a_signing_key_that_was_exchanged_is_refused(folder: Path) -> None:
    started(folder)
    path = next((folder / "keys").glob("*.pem"))
    write(path, p256().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(ModelyardError) as refused:
        started(folder)
    assert refused.value.code == "signing_key_broken"


@pytest.mark.parametrize("name", ["a short secret", "all addresses without expose", "a signing key that all can read"])
def test_the_command_ends_with_the_reason_and_what_to_do(folder: Path, name: str) -> None:
    REFUSED[name][0](folder)

    ended = CliRunner().invoke(app, up(folder))

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()[-2:]] == ["Error", "Try"]


def test_so_does_its_process(folder: Path) -> None:
    REFUSED["a short secret"][0](folder)

    ended = subprocess.run([sys.executable, "-m", "modelyard", *up(folder)], capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()[-1].partition(":")[0]) == (2, "", "Try")


def up(folder: Path) -> list[str]:
    return ["up", "--port", "0", "--data", str(folder)]
