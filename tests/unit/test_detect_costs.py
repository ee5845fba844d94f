"""Files that are made to cost time, or to break a parser below, are read or refused quickly."""

import time
import zipfile

import pytest

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import MIB
from upload_service.archive import read_archive
from upload_service.detect import Ceilings, detect

APP = "from flask import Flask\napp = Flask(__name__)\n"
SECONDS = 3.0


@pytest.fixture
def refused(tmp_path):
    """The code of the refusal, None where there is none; too much time fails."""

    def refused(**files):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in {"app_py": APP, **files}.items():
                archive.writestr({"python": ".python-version"}.get(name, name.replace("_", ".")), text)
        began, error = time.process_time(), None
        try:
            with read_archive(path) as archive:
                detect(archive, Ceilings())
        except Invalid as caught:
            error = caught
        assert time.process_time() - began < SECONDS
        assert error is None or len(error.message) < 10_000
        return error.code if error else None

    return refused


def test_spaces_in_a_procfile(refused):
    assert refused(Procfile="web: a" + " " * (MIB - 100) + "b") == "not_read_yet"
    assert refused(Procfile="web:" + " \n" * 300_000) is None


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * (MIB - 100) + "b",
        "a" + " \\\n" * 1900 + " " * 900_000 + "b",
        ("a" + " " * 500 + "b\n") * 1900,
        "a" + (" --hash=sha256:" + "0" * 64) * 12_000 + " x",
        "a" + " --hash" * 100_000,
    ],
    ids=["one line", "continued", "many lines", "hashes", "half hashes"],
)
def test_spaces_and_hashes_in_requirements(refused, text):
    assert refused(requirements_txt=text) == "requirements_option"


def test_a_requirement_with_the_hashes_of_a_hundred_wheels_is_read(refused):
    assert (
        refused(requirements_txt="numpy==2.0.0" + " \\\n    --hash=sha256:" + ("0" * 64 + " \\\n    --hash=sha256:") * 99 + "0" * 64)
        is None
    )


@pytest.mark.parametrize(
    "settings",
    [
        "[app]\nport = " + "9" * 5000,
        "[limits]\nmax_body = -" + "9" * 5000,
        "a" + ".a" * 30_000 + " = 1",
        "[a" + ".a" * 30_000 + "]",
        ("[" + "a." * 60 + "a]\n" + "a." * 60 + "a = 1\n") * 200,
        "a = " + "[" * 60_000,
        "".join(f"k{n} = 1\n" for n in range(6000)),
        "[app]\nentry = '" + "a" * 30_000 + ":app'",
    ],
    ids=["digits", "negative digits", "dotted", "dotted table", "many dotted", "nested", "unknown keys", "long entry"],
)
def test_settings_that_are_made_to_cost(refused, settings):
    assert refused(modelyard_toml=settings) == "app_settings_invalid"


def test_a_size_beyond_every_floating_point_number_is_above_the_ceiling(refused):
    assert refused(modelyard_toml="[limits]\nmemory = 0x" + "f" * 3000) == "limit_above_ceiling"


@pytest.mark.parametrize("project", ["a" + ".a" * 400_000 + " = 1", "[tool.x]\nn = " + "9" * 5000])
def test_a_project_file_that_is_made_to_cost_is_no_reason_to_break(refused, project):
    assert refused(requirements_txt="", pyproject_toml=project) is None


@pytest.mark.parametrize("version", ["9" * 5000, ">=" + "9" * 5000, ">=1," * 200_000 + ">=1", "1" + ".1" * 400_000])
def test_a_version_that_is_made_to_cost(refused, version):
    assert refused(python=version) == "python_version"


def test_a_source_too_long_to_parse_is_not_parsed(refused):
    assert refused(app_py="a\n" * 100_000 + APP) == "file_too_large"
