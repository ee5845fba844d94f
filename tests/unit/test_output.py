"""The two files that keep an instance's last output."""

from modelyard.runtime.output import OutputFile


def test_what_was_printed_is_read_back(tmp_path):
    output = OutputFile(tmp_path, "a")
    output.append(b"one\n")
    output.append(b"two\n")
    assert OutputFile(tmp_path, "a").last(1000) == b"one\ntwo\n"
    assert output.last(4) == b"two\n"


def test_a_flood_keeps_its_end_in_a_bounded_space(tmp_path):
    output = OutputFile(tmp_path, "a", file_bytes=100)
    for number in range(1000):
        output.append(f"{number:09d}\n".encode())
    kept = output.last(1000)
    assert kept.endswith(b"000000999\n")
    assert 100 <= len(kept) <= 220
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 220


def test_a_read_across_both_files_is_in_order(tmp_path):
    output = OutputFile(tmp_path, "a", file_bytes=100)
    for number in range(15):
        output.append(f"{number:09d}\n".encode())
    assert output.last(70) == b"".join(f"{number:09d}\n".encode() for number in range(8, 15))


def test_nothing_printed_is_empty(tmp_path):
    assert OutputFile(tmp_path, "a").last(1000) == b""


def test_others_on_the_machine_cannot_read_it(tmp_path):
    OutputFile(tmp_path, "a").append(b"secret")
    assert (tmp_path / "a.log").stat().st_mode & 0o077 == 0
