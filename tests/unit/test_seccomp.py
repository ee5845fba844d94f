"""The filter of system calls, run by a small interpreter of classic BPF: every decision, without a sandbox."""

import errno
import struct
from pathlib import Path

import pytest

from modelyard.runtime.seccomp import MACHINES, REFUSED, REFUSED_ON_X86, UnsupportedMachineError, filter_program

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
CLONE_NEWUSER, CLONE_VM, CLONE_NEWTIME = 0x10000000, 0x100, 0x80
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def decide(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter answers to one call: `struct seccomp_data` in, the action out."""
    audit = MACHINES[machine].audit if audit is None else audit
    call = struct.pack("<IIQ6Q", number, audit, 0, *(list(arguments) + [0] * 6)[:6])
    program = list(struct.iter_unpack("<HBBI", filter_program(machine)))
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", call, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("name", list(REFUSED))
def test_each_refused_call_answers_eperm(machine, name):
    assert decide(machine, REFUSED[name][MACHINES[machine].column]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("name", list(REFUSED_ON_X86))
def test_calls_of_x86_alone_are_refused_there(name):
    assert decide("x86_64", REFUSED_ON_X86[name]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", list(MACHINES))
def test_ordinary_calls_pass(machine):
    refused = {*MACHINES[machine].refused, MACHINES[machine].clone3}
    for number in set(range(470)) - refused - {MACHINES[machine].socket}:
        assert decide(machine, number) == ALLOW, number


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize(
    ("family", "answer"),
    [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (17, None), (38, None), (40, None), (31, None), (0, None)],
)
def test_sockets_of_four_families_only(machine, family, answer):
    expected = ERRNO | errno.EAFNOSUPPORT if answer is None else answer
    assert decide(machine, MACHINES[machine].socket, family) == expected


@pytest.mark.parametrize("machine", list(MACHINES))
def test_a_thread_may_be_made_and_a_namespace_may_not(machine):
    clone = MACHINES[machine].clone
    assert decide(machine, clone, CLONE_VM) == ALLOW
    for flag in (CLONE_NEWUSER, CLONE_NEWTIME, 0x20000, 0x40000000, 0x02000000):
        assert decide(machine, clone, CLONE_VM | flag) == ERRNO | errno.EPERM
    assert decide(machine, MACHINES[machine].clone3) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", list(MACHINES))
def test_nothing_is_typed_into_a_terminal(machine):
    ioctl = MACHINES[machine].ioctl
    assert decide(machine, ioctl, 0, 0x5412) == ERRNO | errno.EPERM
    assert decide(machine, ioctl, 0, 0x541C) == ERRNO | errno.EPERM
    assert decide(machine, ioctl, 0, 0x5413) == ALLOW


def test_numbers_of_another_architecture_are_killed():
    assert decide("x86_64", 0, audit=0x40000003) == KILL  # i386, as by int 0x80
    assert decide("x86_64", 0x40000000) == KILL  # x32
    assert decide("aarch64", 0, audit=MACHINES["x86_64"].audit) == KILL


def test_a_machine_without_a_table_is_told():
    with pytest.raises(UnsupportedMachineError, match="riscv64"):
        filter_program("riscv64")


@pytest.mark.parametrize("name", [*REFUSED, *REFUSED_ON_X86])
def test_numbers_are_those_of_the_kernel_header(name):
    if not HEADER.exists():
        pytest.skip("the kernel's headers are not installed")
    told = dict(line.split()[1:3] for line in HEADER.read_text().splitlines() if line.startswith("#define __NR_"))
    number = REFUSED[name][0] if name in REFUSED else REFUSED_ON_X86[name]
    assert told.get(f"__NR_{name}", str(number)) == str(number)
