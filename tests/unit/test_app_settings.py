"""modelyard.toml is read strictly, and every mistake is named by table and key."""

import pytest

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import GIB, MIB, Idle, Limits
from upload_service.app_settings import Ceilings, idle_within, limits_within, read_app_settings

WHOLE = """
[app]
command = "python app.py --port $PORT --name 'two words'"
port = 9000
health = "/ready?deep=1"
python = "3.11"
[limits]
memory = "512MiB"
cpus = 0.5
timeout_s = 30
max_body = 1000
[idle]
freeze_s = 0
stop_s = 10.5
"""


def test_all_that_may_be_said():
    settings = read_app_settings(WHOLE)
    assert settings.app.command == ("python", "app.py", "--port", "$PORT", "--name", "two words")
    assert (settings.app.port, settings.app.health, settings.app.python) == (9000, "/ready?deep=1", "3.11")
    limits = limits_within(settings, Ceilings())
    assert limits == Limits(memory_bytes=512 * MIB, cpus=0.5, timeout_s=30, max_body_bytes=1000)
    assert idle_within(settings, Ceilings()) == Idle(freeze_s=0, stop_s=10.5)


def test_what_is_not_said_is_the_default():
    settings = read_app_settings("\ufeff")
    assert settings.app.command is None
    assert limits_within(settings, Ceilings()) == Limits()
    assert idle_within(settings, Ceilings()) == Idle()


def test_a_default_is_never_above_the_ceiling():
    ceilings = Ceilings(memory_bytes=64 * MIB, cpus=0.5, timeout_s=1, max_body_bytes=5, stop_s=2)
    assert limits_within(read_app_settings(""), ceilings) == Limits(memory_bytes=64 * MIB, cpus=0.5, timeout_s=1, max_body_bytes=5)
    assert idle_within(read_app_settings(""), ceilings).stop_s == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("536870912", 512 * MIB),
        ('"536870912"', 512 * MIB),
        ('"512MiB"', 512 * MIB),
        ('"512m"', 512 * MIB),
        ('"512 Mi"', 512 * MIB),
        ('"1g"', GIB),
        ('"1GiB"', GIB),
        ('"1.5GiB"', 3 * GIB // 2),
        ('"512MB"', 512_000_000),
        ('"65536KiB"', 64 * MIB),
    ],
)
def test_sizes(text, size):
    assert read_app_settings(f"[limits]\nmemory = {text}").limits.memory == size


def test_sh_is_there_for_those_who_want_a_shell():
    assert read_app_settings("[app]\ncommand = \"sh -c 'a && b | c'\"").app.command == ("sh", "-c", "a && b | c")


@pytest.mark.parametrize(
    ("text", "field", "part"),
    [
        ("[[", "modelyard.toml", "TOML"),
        ("[app]\nport = x\n", "modelyard.toml", "line 2"),
        ("a = " + "[" * 5000, "modelyard.toml", "nested"),
        ("app = 3", "app", "must be a table"),
        ("x = 1", "x", "known are app, limits, idle"),
        ("[app]\ncomand = 'x'", "app.comand", "known are command, entry"),
        ("[limits]\nmem = 1", "limits.mem", "known are memory"),
        ("[app]\nentry = 'app'", "app.entry", "module:object"),
        ("[app]\nentry = 'a b:app'", "app.entry", "module:object"),
        ("[app]\nentry = '../app:app'", "app.entry", "module:object"),
        ("[app]\nentry = 'app:make()'", "app.entry", "module:object"),
        ('[app]\nentry = "app:app\\n"', "app.entry", "module:object"),
        ("[app]\nentry = 'a:b'\ncommand = 'c'", "app", "either"),
        ("[app]\nserver = 'asgi'", "app", "entry"),
        ("[app]\nentry = 'a:b'\nserver = 'http'", "app.server", "asgi"),
        ("[app]\ncommand = ['python', 'app.py']", "app.command", "one string"),
        ("[app]\ncommand = ''", "app.command", "no program"),
        ("[app]\ncommand = \"''\"", "app.command", "no program"),
        ('[app]\ncommand = "a \'b"', "app.command", "quotation"),
        ("[app]\ncommand = 'a && b'", "app.command", "sh -c"),
        ("[app]\ncommand = 'a | b'", "app.command", "sh -c"),
        ("[app]\ncommand = 'a > b'", "app.command", "sh -c"),
        ("[app]\ncommand = 'a; b'", "app.command", "sh -c"),
        ("[app]\ncommand = 'A=1 python app.py'", "app.command", "env"),
        ('[app]\ncommand = "a\\nb"', "app.command", "one line"),
        ('[app]\ncommand = "a\\u0000b"', "app.command", "one line"),
        ("[app]\nport = 0", "app.port", "greater"),
        ("[app]\nport = 70000", "app.port", "less"),
        ("[app]\nport = '8080'", "app.port", "integer"),
        ("[app]\nport = true", "app.port", "integer"),
        ("[app]\nhealth = 'health'", "app.health", "begins with /"),
        ("[app]\nhealth = '/a b'", "app.health", "begins with /"),
        ('[app]\nhealth = "/a\\r\\nX: y"', "app.health", "begins with /"),
        ("[limits]\nmemory = '5 apples'", "limits.memory", "512MiB"),
        ("[limits]\nmemory = true", "limits.memory", "512MiB"),
        ("[limits]\nmemory = 1.5", "limits.memory", "512MiB"),
        ("[limits]\nmemory = '1MiB'", "limits.memory", "greater"),
        ("[limits]\nmemory = -1", "limits.memory", "greater"),
        ("[limits]\ncpus = 0", "limits.cpus", "greater"),
        ("[limits]\ncpus = nan", "limits.cpus", "finite"),
        ("[limits]\ntimeout_s = inf", "limits.timeout_s", "finite"),
        ("[limits]\ncpus = true", "limits.cpus", "number"),
        ("[idle]\nstop_s = -1", "idle.stop_s", "greater"),
        ("[idle]\nstop_s = '5m'", "idle.stop_s", "number"),
    ],
)
def test_mistakes_are_named(text, field, part):
    with pytest.raises(Invalid) as caught:
        read_app_settings(text)
    assert caught.value.code == "app_settings_invalid"
    assert caught.value.errors[0]["field"] == field
    assert part in caught.value.errors[0]["message"]
    assert caught.value.mend


def test_all_mistakes_are_named_at_once():
    with pytest.raises(Invalid) as caught:
        read_app_settings("[app]\nport = 0\n[limits]\ncpus = 0\nx = 1")
    assert {error["field"] for error in caught.value.errors} == {"app.port", "limits.cpus", "limits.x"}


@pytest.mark.parametrize(
    ("text", "field", "setting"),
    [
        ("[limits]\nmemory = '8GiB'", "limits.memory", "ceilings.memory_bytes"),
        ("[limits]\ncpus = 2.5", "limits.cpus", "ceilings.cpus"),
        ("[limits]\ntimeout_s = 601", "limits.timeout_s", "ceilings.timeout_s"),
        ("[limits]\nmax_body = '2g'", "limits.max_body", "ceilings.max_body_bytes"),
        ("[idle]\nstop_s = 100000", "idle.stop_s", "ceilings.stop_s"),
    ],
)
def test_a_limit_above_its_ceiling_names_the_setting(text, field, setting):
    settings = read_app_settings(text)
    within = idle_within if field.startswith("idle") else limits_within
    with pytest.raises(Invalid) as caught:
        within(settings, Ceilings())
    assert caught.value.code == "limit_above_ceiling"
    assert caught.value.errors[0]["field"] == field
    assert setting in caught.value.mend


@pytest.mark.parametrize(("use", "entries"), [('"mobilenet"', ("mobilenet",)), ('["clip", "mobilenet", "clip"]', ("clip", "mobilenet"))])
def test_weights_are_named_by_their_entry(use: str, entries: tuple[str, ...]):
    assert read_app_settings(f"[weights]\nuse = {use}").weights.use == entries
    assert read_app_settings("").weights.use == ()


@pytest.mark.parametrize(
    "use", ['"/etc"', '"../mobilenet"', '"mobilenet/.."', '"gpt"', '""', "1", "[1]", '{a = "b"}', '["mobilenet", "/"]']
)
def test_a_path_is_no_entry(use: str):
    with pytest.raises(Invalid) as refused:
        read_app_settings(f"[weights]\nuse = {use}")
    assert refused.value.code == "app_settings_invalid"
    assert refused.value.errors[0]["field"] == "weights.use"
    assert "known are mobilenet, clip" in refused.value.message
