"""A program of its own: holds one app, hands out sockets of its network, and ends all of it when the platform lets go.

Started by path with `-I -S`: `holder.py CONTROL_FD NAME`. It imports the standard library only, and everything before it gives up
root, because the interpreter's own folder may be closed to the user that it becomes.

The control socket carries JSON lines. First comes the order, answered by `{"up": true}` or `{"error": "..."}`; then come requests
`{"sockets": N, "v6": false}`, each answered by one message that carries the descriptors. Its end is the order to end everything.
"""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
MOST_SOCKETS = 64
LET_GO = 137  # what a process killed by signal 9 is reported as: nobody asks the app's opinion any more

_libc = ctypes.CDLL(None, use_errno=True)

Order = dict[str, Any]


def main(control_fd: int) -> NoReturn:
    """Carry out the order that comes over the control socket; ends with the app's exit status, 128 + N for signal N."""
    os.umask(0o022)
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    text = _line(control)
    if not text:
        sys.exit(LET_GO)
    order = json.loads(text)
    try:
        child = _sandboxed(order, control) if order["mode"] == "sandbox" else _plain(order)
    except OSError as error:
        _say(control, {"error": str(error)})
        sys.exit(1)
    _say(control, {"up": True})
    if order["mode"] == "sandbox":
        _serve(control, child, order)
    _guard(control, child, order)


def _line(control: socket.socket) -> bytes:
    """The next message, to its newline; empty where the other end is closed."""
    text = b""
    while not text.endswith(b"\n"):
        try:
            part = control.recv(1 << 18)
        except OSError:
            return b""
        if not part:
            return b""
        text += part
    return text


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a platform that is gone does not listen: the next read tells
        control.sendall(json.dumps(message).encode() + b"\n")


# --- the sandbox: namespaces and mounts of our own, bubblewrap inside


def _sandboxed(order: Order, control: socket.socket) -> int:
    """Start the sandbox, and return its process id in the new pid namespace, whose first process the caller has become."""
    root = os.geteuid() == 0
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - pathlib is slow to import
        score.write("500")  # a machine out of memory ends apps before the platform
    _unshare(root=root)
    _raise_loopback()
    _stage(order, root=root)
    if root:
        for stream in (1, 2):  # so that an app may open /dev/stdout anew
            os.fchown(stream, order["uid"], order["uid"])
        if order["drop"]:
            os.setgroups([])
            os.setresgid(order["uid"], order["uid"], order["uid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
    first = os.fork()
    if first:
        control.close()
        os.closerange(3, 1024)
        sys.exit(_status(os.waitpid(first, 0)[1]))
    return _start(order)


def _unshare(*, root: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID
    _check(_libc.unshare(flags if root else flags | CLONE_NEWUSER), "new namespaces")
    if root:
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write(text)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def _stage(order: Order, *, root: bool) -> None:
    """Mount what the sandbox is built from where its own user can reach it: sources may lie below folders that only we may enter."""
    stage = order["stage"]
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Opened before the stage covers a folder that may hold them, and after `unshare`: a mount of another namespace cannot be bound.
    sources = {name: os.open(path, os.O_PATH | os.O_DIRECTORY) for name, path in order["binds"].items()}
    app = os.open(order["app"], os.O_PATH | os.O_DIRECTORY)
    _mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NODEV, f"size={order['app_bytes']},mode=755")
    for name in ("app", "upper", "work", *sources):
        os.mkdir(f"{stage}/{name}")  # noqa: PTH102 - pathlib is slow to import
    if root:
        os.chown(f"{stage}/upper", order["uid"], order["uid"])
    for name, source in sources.items():
        _mount(f"/proc/self/fd/{source}", f"{stage}/{name}", None, MS_BIND)
        os.close(source)
    layers = f"lowerdir=/proc/self/fd/{app},upperdir={stage}/upper,workdir={stage}/work"
    _mount("overlay", f"{stage}/app", "overlay", MS_NOSUID | MS_NODEV, layers if root else layers + ",userxattr")
    os.close(app)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = (word and word.encode() for word in (source, target, kind))
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data and data.encode()), f"mount {kind or 'bind'} at {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _serve(control: socket.socket, child: int, order: Order) -> NoReturn:
    """Be the first process of the pid namespace: whatever ends this one, the kernel ends everything below it."""
    keep = {control.fileno(), *([order["thaw"]] if order["thaw"] is not None else [])}
    for descriptor in range(3, 1024):
        if descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        if any(descriptor == ended for descriptor, _ in poll.poll()):
            os._exit(_status(os.waitpid(child, 0)[1]))
        request = _line(control)
        if not request:
            _thaw(order)
            os._exit(LET_GO)
        _hand_out(control, json.loads(request))


def _hand_out(control: socket.socket, request: dict[str, Any]) -> None:
    family = socket.AF_INET6 if request["v6"] else socket.AF_INET
    made = [socket.socket(family) for _ in range(min(request["sockets"], MOST_SOCKETS))]
    numbers = array.array("i", [each.fileno() for each in made])
    with contextlib.suppress(OSError):
        control.sendmsg([b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    for each in made:
        each.close()


# --- without a sandbox: the command itself, in a copy of the app's folder


def _plain(order: Order) -> int:
    """Start the command, and return its process id; whatever it leaves behind becomes a child of this process."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shutil.copytree(order["app"], f"{order['scratch']}/app", symlinks=True, dirs_exist_ok=True)
    return _start(order)


def _guard(control: socket.socket, child: int, order: Order) -> NoReturn:
    """Wait until the command ends or the platform lets go; leave no process and no file behind."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    status = _reap(child)
    while status is None:
        ready, _, _ = select.select([control, reader], [], [])
        if control in ready and not _line(control):
            break
        with contextlib.suppress(BlockingIOError):
            reader.recv(4096)
        status = _reap(child)
    _thaw(order)
    _end_all(child)
    shutil.rmtree(order["scratch"], ignore_errors=True)
    os._exit(LET_GO if status is None else status)


def _reap(child: int) -> int | None:
    """Reap what has ended; the exit status of `child` where it was among it."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = _status(ended[1])
    return status


def _end_all(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while True:
        below = _below(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none forks away meanwhile
            for process in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, number)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _below(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - pathlib is slow to import
            with open(f"/proc/{process}/task/{thread}/children", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
                for child in map(int, file.read().split()):
                    found += [child, *_below(child)]
    return found


# --- both


def _start(order: Order) -> int:
    child = os.fork()
    if child:
        return child
    try:
        for group in order["groups"]:
            os.write(group, b"0")
            os.close(group)
        if order["thaw"] is not None:
            os.close(order["thaw"])
        if order["mode"] == "plain":
            os.setsid()
            if sys.platform == "linux":
                _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.chdir(order["folder"])
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program started by it would too
            signal.signal(ignored, signal.SIG_DFL)
        os.execv(order["words"][0], order["words"])  # noqa: S606 - words of our own making, and no shell
    except BaseException:  # noqa: BLE001 - a forked copy must never run on as its parent
        traceback.print_exc()
    os._exit(127)


def _thaw(order: Order) -> None:
    if order["thaw"] is not None:  # a frozen group of cgroup v1 holds even SIGKILL back
        with contextlib.suppress(OSError):
            os.write(order["thaw"], b"THAWED")


def _status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main(int(sys.argv[1]))
