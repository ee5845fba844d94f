"""What is said about a machine that lacks something for the sandbox."""

import sys

import pytest

from modelyard.runtime.diagnosis import diagnose, install_line, mend_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the one answer is: it needs Linux")


def tools(folder, *names):
    for name in names:
        (folder / name).write_text("#!/bin/sh")
        (folder / name).chmod(0o755)
    return str(folder)


def setting(folder, name, value):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value + "\n")
    return folder


def test_the_missing_program_is_named_with_its_package(tmp_path):
    report = diagnose(user_namespaces=True, path=str(tmp_path), settings=tmp_path)
    assert (report.usable, report.why, report.mend) == (False, "bwrap is not installed in /usr/bin", install_line("bubblewrap"))
    path = tools(tmp_path, "bwrap")
    assert diagnose(user_namespaces=True, path=path, settings=tmp_path).mend == install_line("util-linux")


def test_user_namespaces_that_are_off_are_named_with_their_switch(tmp_path):
    path = tools(tmp_path, "bwrap", "prlimit", "setpriv")
    off = setting(tmp_path, "user/max_user_namespaces", "0")
    assert "user.max_user_namespaces" in diagnose(user_namespaces=True, path=path, settings=off).mend
    assert diagnose(user_namespaces=False, path=path, settings=off) is None
    on = setting(tmp_path, "user/max_user_namespaces", "15000")
    assert diagnose(user_namespaces=True, path=path, settings=on) is None


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("bwrap: Unknown option --disable-userns", "too old"),
        ("prlimit: failed to execute /env/bin/python: Permission denied", "every user can read"),
        ("bwrap: something else", "tells more"),
    ],
)
def test_the_words_of_a_failed_trial_lead_to_a_mend(tmp_path, said, mend):
    assert mend in mend_for(said, tmp_path)
