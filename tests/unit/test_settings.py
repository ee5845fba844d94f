"""Settings: who wins, what is told about each, and what is refused by name."""

from pathlib import Path

import pytest

from modelyard.domain.errors import Invalid
from modelyard.run.settings import Settings, explain, load_settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder."""
    return tmp_path


def write(data: Path, text: str) -> None:
    (data / "settings.toml").write_text(text)


def sources(settings: Settings, *flags: str) -> dict[str, tuple[str, str]]:
    return {each.name: (each.value, each.source) for each in explain(settings, flags)}


def test_flag_beats_environment_beats_file_beats_default(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(data).port == 8080
    write(data, "port = 9001\n")
    assert load_settings(data).port == 9001
    monkeypatch.setenv("MODELYARD_PORT", "9002")
    assert load_settings(data).port == 9002
    assert load_settings(data, port=9003).port == 9003
    assert load_settings(data, port=None).port == 9002


def test_parts_of_one_table_may_come_from_four_places(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data, "[build]\nconcurrency = 3\nlease_s = 7\n")
    monkeypatch.setenv("MODELYARD_BUILD__LEASE_S", "8")
    settings = load_settings(data, **{"build.step_timeout_s": 60.0})

    assert (settings.build.concurrency, settings.build.lease_s, settings.build.step_timeout_s) == (3, 8.0, 60.0)
    told = sources(settings, "build.step_timeout_s")
    assert told["build.concurrency"] == ("3", str(data / "settings.toml"))
    assert told["build.lease_s"] == ("8.0", "environment")
    assert told["build.step_timeout_s"] == ("60.0", "flag")
    assert told["build.torch_index_url"] == ("", "default")


def test_the_environment_names_the_folder_whose_file_is_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data, "port = 9001\n")
    monkeypatch.setenv("MODELYARD_DATA", str(data))

    assert (load_settings().data, load_settings().port) == (data, 9001)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('port = "x"', ["port"]),
        ("port = 65536", ["port"]),
        ("prot = 9001", ["prot"]),
        ("[upload]\nmax_bytes = 1\n[run]\nhold_s = 0", ["upload.max_bytes", "run.hold_s"]),
        ("[build]\nnobody = 1", ["build.nobody"]),
    ],
)
def test_wrong_values_and_unknown_names_are_refused_by_name(data: Path, text: str, fields: list[str]) -> None:
    write(data, text)

    with pytest.raises(Invalid) as refused:
        load_settings(data)
    assert refused.value.code == "setting_invalid"
    assert sorted(each["field"] for each in refused.value.errors) == sorted(fields)
    assert all(field in refused.value.message for field in fields)


def test_a_file_that_is_not_toml_is_refused(data: Path) -> None:
    write(data, "port = \n")

    with pytest.raises(Invalid, match=r"settings\.toml cannot be read: .*line 1") as refused:
        load_settings(data)
    assert refused.value.code == "setting_invalid"


def test_a_list_in_the_environment_is_json_and_anything_else_is_refused_by_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOSTS", '["a.test", "b.test"]')
    assert load_settings(data).hosts == ("a.test", "b.test")
    monkeypatch.setenv("MODELYARD_HOSTS", "a.test,b.test")

    with pytest.raises(Invalid, match=r'The environment cannot be read: .*"hosts"') as refused:
        load_settings(data)
    assert refused.value.code == "setting_invalid"


def test_variables_of_the_tests_and_of_the_command_line_are_no_settings(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_REQUIRE", "sandbox")
    monkeypatch.setenv("MODELYARD_SERVER", "http://127.0.0.1:1")

    assert {source for _, source in sources(load_settings(data)).values()} <= {"default"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s3cret@db:5433/yard", "postgresql://***@db:5433/yard"),
        ("postgresql+psycopg2://ada:s3@cret@db/yard", "postgresql+psycopg2://***@db/yard"),
        ("sqlite:////var/yard.db", "sqlite:////var/yard.db"),
    ],
)
def test_the_password_of_a_url_is_never_shown(data: Path, url: str, shown: str) -> None:
    assert sources(load_settings(data, database_url=url))["database_url"][0] == shown


def test_the_build_takes_the_index_that_this_machine_s_tools_were_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://ada:s3cret@index.test/simple")
    assert load_settings(data).build.index_url == "https://ada:s3cret@index.test/simple"
    assert sources(load_settings(data))["build.index_url"] == ("https://***@index.test/simple", "default")
    monkeypatch.setenv("MODELYARD_BUILD__INDEX_URL", "https://other.test/simple")
    assert sources(load_settings(data))["build.index_url"] == ("https://other.test/simple", "environment")


def test_settings_do_not_change(data: Path) -> None:
    settings = load_settings(data)

    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
    with pytest.raises(ValueError, match="frozen"):
        settings.upload.max_bytes = 1
