"""The server's secret: where it comes from, and what is too weak to start with."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from auth_service.server_secret import ServerSecret, server_secret
from modelyard.domain.errors import Invalid
from modelyard.run.settings import load_settings

STRONG = "rQ7vJ0m3Xc9Tz1LpKd8WfYh2BnG5sEaU"
FILE = Path("keys/server.secret")


def secret(folder: Path, text: str | None = None) -> ServerSecret:
    return server_secret(load_settings(folder, **{"auth.secret": text}))


def test_the_first_start_writes_one_that_later_starts_find(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        macs = set(pool.map(lambda _: secret(tmp_path).mac("test"), range(16)))

    assert len(macs) == 1
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / FILE).parent.stat().st_mode) == 0o700
    assert len((tmp_path / FILE).read_text().strip()) == 64
    assert [path.name for path in (tmp_path / FILE).parent.iterdir()] == [FILE.name]


def test_two_servers_have_two_secrets_and_the_setting_beats_the_file(tmp_path: Path) -> None:
    one, other = secret(tmp_path / "one"), secret(tmp_path / "other")

    assert one.mac("test") != other.mac("test")
    assert secret(tmp_path / "one", STRONG).mac("test") == secret(tmp_path / "other", STRONG).mac("test") != one.mac("test")
    assert secret(tmp_path / "third", (tmp_path / "one" / FILE).read_text().strip()).mac("test") == one.mac("test")


def test_what_is_told_apart_has_another_value(tmp_path: Path) -> None:
    kept = secret(tmp_path)
    told = [("refresh", "a", 1), ("refresh", "a", 11), ("refresh", "a1", 1), ("device", "a", 1), ("refresh", "a"), ("refresh",)]

    assert len({kept.mac(*each) for each in told}) == len(told)
    assert all(kept.is_mac(kept.mac(*each), *each) for each in told)
    assert not any(kept.is_mac(wrong, "refresh", "a", 1) for wrong in ("", "a" * 64, "é", "\ud800", kept.mac("refresh", "a", 2)))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x", "secret_short"),
        ("", "secret_short"),
        (STRONG[:31], "secret_short"),
        ("a" * 32, "secret_weak"),
        ("0" * 64, "secret_weak"),
        ("ab" * 32, "secret_weak"),
        ("0123456789" * 4, "secret_weak"),
        ("rQ7vJ0m3Xc9Tz1Lp" * 2, "secret_weak"),
        ("changeme" * 4, "secret_weak"),
        ("ChangeMe-in-production-please-1234", "secret_weak"),
        ("change_me_" + STRONG, "secret_weak"),
        ("your-256-bit-key-goes-right-here-now", "secret_weak"),
        ("supersecretsupersecretsupersecret!", "secret_weak"),
        ("this is my server's secret phrase ok", "secret_weak"),
        ("password" + STRONG, "secret_weak"),
        ("django-insecure-#1x9k2m4n6b8v0c3z5l7", "secret_weak"),
        ("abcdefghijklmnopqrstuvwxyz0123456789", "secret_weak"),
        ("qwertyuiopasdfghjklzxcvbnm1234567890", "secret_weak"),
        ("example-key-for-the-tests-of-a-server", "secret_weak"),
        ("deadbeefcafebabe0123456789abcdef1234", "secret_weak"),
        ("modelyard-server-key-2026-production", "secret_weak"),
        ("        " * 5, "secret_weak"),
    ],
)
def test_a_weak_secret_refuses_to_start_and_is_not_shown(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        secret(tmp_path, text)

    assert refused.value.code == code
    assert "openssl rand" in refused.value.mend
    assert len(text) < 8 or text not in f"{refused.value.message} {refused.value.mend}"
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["", "short", "a" * 64, "\xff" * 64])
def test_a_file_that_holds_a_weak_one_is_refused_too(tmp_path: Path, content: str) -> None:
    secret(tmp_path)
    (tmp_path / FILE).write_text(content)

    with pytest.raises(Invalid) as refused:
        secret(tmp_path)
    assert refused.value.code in {"secret_short", "secret_weak"}
    assert str(tmp_path / FILE) in refused.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o606])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret(tmp_path)
    (tmp_path / FILE).chmod(mode)

    with pytest.raises(Invalid) as refused:
        secret(tmp_path)
    assert (refused.value.code, refused.value.mend) == ("secret_exposed", f"Run: chmod 600 {tmp_path / FILE}")


def test_settings_that_hold_it_must_be_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'[auth]\nsecret = "{STRONG}"\n')
    file.chmod(0o644)
    with pytest.raises(Invalid) as refused:
        secret(tmp_path)
    assert (refused.value.code, refused.value.mend) == ("secret_exposed", f"Run: chmod 600 {file}")

    file.chmod(0o600)
    assert secret(tmp_path).mac("test") == ServerSecret(STRONG).mac("test")
    file.chmod(0o644)
    file.write_text("port = 8081\n")
    monkeypatch.setenv("MODELYARD_AUTH__SECRET", STRONG)
    assert secret(tmp_path).mac("test") == ServerSecret(STRONG).mac("test")


def test_it_never_shows_itself(tmp_path: Path) -> None:
    assert STRONG not in repr(secret(tmp_path, STRONG))
    assert STRONG not in str(load_settings(tmp_path, **{"auth.secret": STRONG}))
