"""The setting `apps_domain`: a name of its own, apart from the console's."""

from pathlib import Path

import pytest

from modelyard.domain.errors import Invalid
from modelyard.run.settings import load_settings
from modelyard.web.apps_gate import console_name


@pytest.mark.parametrize("name", ["apps.localhost", "apps.example.com", "a-1.b2.example.xn--p1ai", "x" * 63 + ".org"])
def test_a_host_name_is_taken(tmp_path: Path, name: str) -> None:
    assert load_settings(tmp_path, apps_domain=name).apps_domain == name


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            "localhost",
            "Apps.localhost",
            ".localhost",
            "apps.",
            "apps..org",
            "apps.example.com.",
            "apps.example.com:8080",
            "*.example.com",
        ],
        *[
            "apps_1.org",
            "-a.org",
            "a-.org",
            "127.0.0.1",
            "apps.1",
            "apps.example.com/",
            "apps.exa mple.com",
            "x" * 64 + ".org",
            "a." * 101 + "org",
        ],
    ],
)
def test_what_is_no_host_name_for_others_to_lie_below_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="apps_domain"):
        load_settings(tmp_path, apps_domain=name)


@pytest.mark.parametrize("host", ["apps.example.com", "yard.apps.example.com", "a.b.apps.example.com"])
def test_no_name_of_the_console_lies_where_apps_answer(tmp_path: Path, host: str) -> None:
    with pytest.raises(Invalid, match="where uploaded apps answer"):
        load_settings(tmp_path, apps_domain="apps.example.com", hosts=(host,))
    assert load_settings(tmp_path, apps_domain="apps.example.com", hosts=("example.com",)).hosts == ("example.com",)


@pytest.mark.parametrize(
    ("domain", "hosts", "console"),
    [
        ("apps.localhost", (), "localhost"),
        ("apps.localhost", ("yard.test",), "localhost"),
        ("apps.example.com", ("other.test", "example.com"), "example.com"),
        ("apps.example.com", ("yard.example.com", "other.test"), "yard.example.com"),
        ("apps.example.com", (), "localhost"),
    ],
)
def test_a_browser_without_a_cookie_is_led_to_the_console_that_the_names_tell(domain: str, hosts: tuple[str, ...], console: str) -> None:
    assert console_name(domain, hosts) == console
