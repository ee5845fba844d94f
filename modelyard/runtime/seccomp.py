"""The system calls that an app may not make, as a classic BPF program for `bwrap --seccomp`.

Sources: the kernel's syscall tables (x86-64, arm64) and `linux/seccomp.h`, `linux/filter.h`, `linux/sched.h`. What is refused
answers EPERM, so that libraries take their fallbacks; a foreign architecture, whose numbers mean other calls, is killed.
"""

import errno
import platform
import socket
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

X32_BIT = 0x40000000
NEW_NAMESPACES = 0x7E020000 | 0x80  # user, pid, net, ipc, uts, cgroup; mount; time
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16)  # 16: AF_NETLINK, by which libraries list interfaces
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into somebody's terminal

# name: (number on x86-64, number on arm64)
REFUSED: dict[str, tuple[int, int]] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # doors into the kernel that no namespace confines
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    # the machine itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    # placing memory of other processes
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
}
REFUSED_ON_X86 = {"iopl": 172, "ioperm": 173, "uselib": 134, "ustat": 136, "sysfs": 139, "_sysctl": 156, "modify_ldt": 154}


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs between architectures: the audit number, and the calls whose arguments are looked at."""

    audit: int
    column: int
    clone: int
    clone3: int
    socket: int
    ioctl: int

    @property
    def refused(self) -> list[int]:
        """The numbers that are refused whatever their arguments are."""
        own = set(REFUSED_ON_X86.values()) if self.column == 0 else set()
        return sorted({numbers[self.column] for numbers in REFUSED.values()} | own)


MACHINES = {
    "x86_64": Machine(audit=0xC000003E, column=0, clone=56, clone3=435, socket=41, ioctl=16),
    "aarch64": Machine(audit=0xC00000B7, column=1, clone=220, clone3=435, socket=198, ioctl=29),
}


class UnsupportedMachineError(RuntimeError):
    """There is no table of system calls for this architecture."""


class _Program:
    """Instructions with named targets; a jump goes forward only, by at most 255, as the kernel demands."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None, int]] = []
        self._places: dict[str, int] = {}

    def load(self, offset: int) -> None:
        self._lines.append((_LOAD, None, offset))

    def jump(self, test: int, value: int, target: str) -> None:
        self._lines.append((test, target, value))

    def answer(self, value: int) -> None:
        self._lines.append((_RETURN, None, value))

    def place(self, name: str) -> None:
        self._places[name] = len(self._lines)

    def assemble(self) -> bytes:
        return b"".join(
            struct.pack("<HBBI", code, self._places[target] - at - 1 if target else 0, 0, value)
            for at, (code, target, value) in enumerate(self._lines)
        )


def filter_program(architecture: str | None = None) -> bytes:
    """The filter for this machine, or for `x86_64` or `aarch64`: `struct sock_filter` entries of 8 bytes each.

    Raises:
        UnsupportedMachineError: There is no table for the architecture.
    """
    name = architecture or platform.machine()
    if name not in MACHINES:
        raise UnsupportedMachineError(f"no list of system calls for {name}; there is one for {' and '.join(MACHINES)}")
    machine, program = MACHINES[name], _Program()
    program.load(_ARCHITECTURE_AT)
    program.jump(_EQUAL, machine.audit, "ours")
    program.answer(_KILL_PROCESS)
    program.place("ours")
    program.load(_NUMBER_AT)
    if name == "x86_64":
        program.jump(_AT_LEAST, X32_BIT, "kill")
    # ENOSYS: its flags lie in memory, where a filter cannot look; the C library then takes clone.
    program.jump(_EQUAL, machine.clone3, "unknown")
    program.jump(_EQUAL, machine.clone, "clone")
    program.jump(_EQUAL, machine.socket, "socket")
    program.jump(_EQUAL, machine.ioctl, "ioctl")
    for number in machine.refused:
        program.jump(_EQUAL, number, "refuse")
    program.answer(_ALLOW)
    _judge_arguments(program)
    program.place("allow")
    program.answer(_ALLOW)
    program.place("refuse")
    program.answer(_ERRNO | errno.EPERM)
    program.place("unknown")
    program.answer(_ERRNO | errno.ENOSYS)
    program.place("kill")
    program.answer(_KILL_PROCESS)
    return program.assemble()


def _judge_arguments(program: _Program) -> None:
    program.place("clone")
    program.load(_ARGUMENTS_AT)
    program.jump(_ANY_BIT, NEW_NAMESPACES, "refuse")
    program.answer(_ALLOW)
    program.place("socket")
    program.load(_ARGUMENTS_AT)
    for family in FAMILIES:
        program.jump(_EQUAL, family, "allow")
    program.answer(_ERRNO | errno.EAFNOSUPPORT)
    program.place("ioctl")
    program.load(_ARGUMENTS_AT + 8)
    for request in TERMINAL_INPUT:
        program.jump(_EQUAL, request, "refuse")
    program.answer(_ALLOW)
