"""A requirements.txt is read strictly, and written anew."""

import pytest

from modelyard.domain.errors import Invalid
from upload_service.requirements import MOST_BYTES, MOST_LINES, read_requirements

SHA = "a" * 64
ACCEPTED = [
    ("flask", ("flask",)),
    ("flask==3.0.0", ("flask==3.0.0",)),
    ("  Flask  >= 2 , < 4  # web", ("Flask<4,>=2",)),
    ("uvicorn[standard , watch]>=0.30", ("uvicorn[standard,watch]>=0.30",)),
    ("torch==2.8.0+cpu", ("torch==2.8.0+cpu",)),
    ("numpy (>=1.2)", ("numpy>=1.2",)),
    ("numpy~=1.2\r\nscipy!=1.*\r\n", ("numpy~=1.2", "scipy!=1.*")),
    ("# a comment\n\n\t\nflask # b\n", ("flask",)),
    ("flask \\\n  >=2 \\\n  ,<4\nnumpy", ("flask<4,>=2", "numpy")),
    ("# a comment never goes on \\\nflask", ("flask",)),
    (f"flask==3.0.0 --hash=sha256:{SHA} --hash=sha512:{SHA * 2}", ("flask==3.0.0",)),
    (f"flask==3.0.0 \\\n    --hash=sha256:{SHA} \\\n    --hash=sha256:{SHA}\nnumpy", ("flask==3.0.0", "numpy")),
    ("tomli ; python_version<'3.11'", ('tomli ; python_version < "3.11"',)),
    (
        'a; sys_platform=="linux" and (os_name!="nt" or platform_machine in "x86_64, arm64")',
        ('a ; sys_platform == "linux" and (os_name != "nt" or platform_machine in "x86_64, arm64")',),
    ),
    ("\ufeffflask", ("flask",)),
    ("", ()),
]
REFUSED = [
    "--index-url https://example.org/simple",
    "-i https://example.org/simple",
    "--extra-index-url=https://example.org/simple",
    "--extra-index-url \\\n https://example.org/simple",
    "--find-links ./wheels",
    "-f wheels",
    "--no-index",
    "--pre",
    "--trusted-host example.org",
    "--no-binary :all:",
    "--only-binary=:none:",
    "--require-hashes",
    "--use-feature=fast-deps",
    "-r other.txt",
    "-rother.txt",
    "--requirement=/etc/passwd",
    "-c constraints.txt",
    "-e .",
    "-e git+https://example.org/a.git#egg=a",
    "--editable=.",
    "git+https://example.org/a.git",
    "hg+ssh://example.org/a",
    "https://example.org/a.whl",
    "file:///etc/passwd",
    "file:a.whl",
    "a @ https://example.org/a.whl",
    "a@https://example.org/a.whl",
    "a @ file:///tmp/a.whl",
    "a @ git+https://example.org/a.git",
    ".",
    "./a",
    "../a",
    "/abs/a",
    "~/a",
    "sub/dir",
    "..\\a",
    "C:\\a\\b.whl",
    "a-1.0-py3-none-any.whl",
    "a-1.0.tar.gz",
    "a.zip[extra]",
    "${NAME}",
    "a==${VERSION}",
    "a==$VERSION",
    "a --config-settings=--global-option=x",
    "a --global-option=build_ext",
    "a --hash=md5:0123",
    "a --hash=sha256:zz",
    f"a --hash=sha256:{SHA} --index-url=https://example.org",
    "a --no-deps",
    "a -i https://example.org",
    "a===../../x",
    "a==1.0; extra == 'x'",
    'a; python_version < "3.11" and "--index-url" == "${X}"',
    'a; os_name == "\\n-e ."',
    "a; platform_version == '`id`'",
    "a; " + "(" * 900 + "os_name=='nt'" + ")" * 900,
    "a==1.0; rubbish",
    "a b",
    "a=1.0",
    "numpy=1.2=py_0",
    "a\x0b-r other.txt",
    "a\x0c--pre",
    "a\u2028-r other.txt",
    "a\r-r other.txt",
    "a\x00",
    "\u0430bc",
    "a" * 3000,
    "[section]",
    "a,b",
    "*",
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED)
def test_requirements_are_written_anew(text, expected):
    assert read_requirements(text, "requirements.txt") == expected
    assert read_requirements(text.encode(), "requirements.txt") == expected


@pytest.mark.parametrize("line", REFUSED)
def test_all_else_is_refused_with_its_line(line):
    with pytest.raises(Invalid) as caught:
        read_requirements(f"flask==3.0.0\n\n{line}\n", "requirements.txt")
    assert caught.value.code == "requirements_option"
    assert caught.value.message.startswith("requirements.txt line 3: ")
    assert caught.value.errors[0]["entry"] == "requirements.txt line 3"
    assert caught.value.mend


def test_a_continued_option_is_one_line():
    with pytest.raises(Invalid) as caught:
        read_requirements("flask \\\n--index-url \\\nhttps://example.org", "requirements.txt")
    assert caught.value.errors[0]["entry"] == "requirements.txt line 1"


def test_what_is_written_reads_as_itself():
    for text, expected in ACCEPTED:
        if expected:
            assert read_requirements("\n".join(expected), "again") == expected, text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_another_encoding_is_refused_with_the_mend(encoding):
    with pytest.raises(Invalid) as caught:
        read_requirements("caf\u00e9==1".encode(encoding) + b"\xff", "requirements.txt")
    assert caught.value.code == "requirements_encoding"
    assert "UTF-8" in caught.value.mend


@pytest.mark.parametrize("text", ["a\n" * MOST_LINES, "#" * (MOST_BYTES + 1)])
def test_a_long_file_is_refused(text):
    with pytest.raises(Invalid) as caught:
        read_requirements(text, "requirements.txt")
    assert caught.value.code == "requirements_too_long"
