"""Which folders an environment's interpreter needs at their own paths."""

from modelyard.runtime.interpreter import prefixes


def environment(folder, target, home):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(target)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\nversion_info = 3.12.1\n")
    return folder


def test_the_prefix_above_the_home_is_needed(tmp_path):
    real = tmp_path / "python-3.12.1"
    (real / "bin").mkdir(parents=True)
    made = environment(tmp_path / "env", real / "bin/python3.12", real / "bin")
    assert prefixes(made) == {str(real): str(real)}


def test_a_prefix_that_is_a_link_is_needed_under_both_names(tmp_path):
    real, link = tmp_path / "python-3.12.1", tmp_path / "python-3.12"
    (real / "bin").mkdir(parents=True)
    link.symlink_to(real)
    made = environment(tmp_path / "env", link / "bin/python3.12", real / "bin")
    assert prefixes(made) == {str(real): str(real), str(link): str(real)}


def test_the_systems_own_is_there_already(tmp_path):
    assert prefixes(environment(tmp_path / "env", "/usr/bin/python3", "/usr/bin")) == {}


def test_links_inside_the_environment_are_followed(tmp_path):
    made = environment(tmp_path / "env", "python3", "/opt/python/bin")
    (made / "bin/python3").symlink_to("/opt/python/bin/python3.12")
    assert prefixes(made) == {"/opt/python": "/opt/python"}
