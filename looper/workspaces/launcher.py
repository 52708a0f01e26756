"""Start one command under resource limits and, where asked, Landlock and seccomp; end all it leaves behind.

A script of its own, run by the bare interpreter as `python -I -S launcher.py SPEC...`: limits are set in
a process without threads, between fork and exec. It stays as the parent ("subreaper") of everything
that the command starts, so nothing outlives the command. Where the command has the same user, it can kill this script:
the command ends with it, and looper ends the rest (`orphans.py`). SPEC... joined is a marshalled dictionary in hex, see
`confined.py`: this script runs for every command, and importing json alone would cost six milliseconds.
"""

import _signal as signal  # type: ignore[import-not-found]  # without the enums of signal: four milliseconds
import ctypes
import marshal
import os
import resource
import struct
import sys
import time

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 24, 22, 38, 36
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, CAPSET = 444, 445, 446, {"x86_64": 126, "aarch64": 91}
LIST, READ, DEVICE = 0x8, 0x1 | 0x4 | 0x8, 0x2 | 0x4
FILE_RIGHTS = 0x1 | 0x2 | 0x4 | 1 << 14 | 1 << 15

LINUX = sys.platform.startswith("linux")
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """Return a C call's result. Raises OSError if it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def prctl(option: int, value: int, pointer: "ctypes.c_void_p | None" = None) -> int:
    """Call the kernel's prctl and return its result."""
    return int(libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def landlock_abi() -> int:
    """Return the version of the kernel's Landlock, 0 if it has none."""
    return max(int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))), 0) if LINUX else 0


def ruleset(rules: "list[tuple[str, str]]") -> int:
    """Return a descriptor of a Landlock rule set that allows `rules` (path, kind) and nothing else."""
    abi = landlock_abi()
    handled = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        handled |= (1 << bit) if abi >= since else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("=QQQ", handled, 3, 3)[:size]  # no TCP; no signals or abstract sockets outside
    what = ctypes.create_string_buffer(attributes, size)
    out = check(libc.syscall(CREATE_RULESET, what, ctypes.c_size_t(size), ctypes.c_uint(0)), "landlock")
    rights = {"read": READ, "list": LIST, "device": DEVICE, "write": handled}
    for path, kind in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        allowed = rights[kind] & handled
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib costs four milliseconds here
            allowed &= FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, fd), 12)
        check(libc.syscall(ADD_RULE, out, ctypes.c_int(1), rule, ctypes.c_uint(0)), f"landlock rule for {path}")
        os.close(fd)
    return out


def drop(owner: "int | None") -> None:
    """Give up root: become `owner`, or, without one, keep the user id but no capability."""
    if owner is not None:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    elif LINUX and os.geteuid() == 0:
        for capability in range(64):
            prctl(PR_CAPBSET_DROP, capability)
        head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
        check(libc.syscall(CAPSET[os.uname().machine], head, ctypes.create_string_buffer(24)), "capset")


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter for this process and its children."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    check(prctl(PR_SET_SECCOMP, 2, ctypes.cast(ctypes.create_string_buffer(head, 16), ctypes.c_void_p)), "seccomp")


def become(spec: "dict[str, object]", parent: int) -> None:
    """Turn into the command, which ends with its parent: limits, user, rules, filter, exec."""
    os.setsid()
    if LINUX:  # should memory run out, these processes are the first to go
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    rules = spec["rules"]
    allowed = ruleset(rules) if isinstance(rules, list) else -1
    limits = spec["limits"]
    assert isinstance(limits, dict)
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is None or (name == "RLIMIT_AS" and not LINUX):
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    owner = spec["owner"]
    drop(owner if isinstance(owner, int) else None)
    if LINUX:
        check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    if allowed >= 0:
        check(libc.syscall(RESTRICT_SELF, allowed, ctypes.c_uint(0)), "landlock")
        os.close(allowed)
    if LINUX:  # after the change of user, which would clear it
        check(prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "pdeathsig")
        if os.getppid() != parent:
            os._exit(143)
    filters = spec["filter"]
    if isinstance(filters, bytes) and filters:
        filter_calls(filters)
    env = spec["env"]
    assert isinstance(env, dict)
    os.chdir(str(spec["cwd"]))
    os.execve("/bin/bash", ["bash", "-c", str(spec["command"])], env)


def descendants() -> "list[int]":
    """Return all processes below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(name))
    out, todo = [], [os.getpid()]
    while todo:
        found = children.get(todo.pop(), [])
        out += found
        todo += found
    return out


def end_all(child: int, seconds: float = 4.0) -> None:
    """Kill everything that the command started, until nothing is left."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the group has ended, or it has not begun: the child is found below
    until = time.monotonic() + seconds
    while LINUX and time.monotonic() < until:
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def main() -> None:
    """Run the command of the specification and exit as it does."""
    spec = marshal.loads(bytes.fromhex("".join(sys.argv[1:])))
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != spec["parent"]:
            os._exit(143)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            become(spec, supervisor)
        except BaseException as error:
            os.write(2, f"looper: the sandbox could not be set up: {error}\n".encode())
        os._exit(126)

    def stop(*_: object) -> None:
        end_all(child)
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    null = os.open(os.devnull, os.O_RDWR)  # the pipe shall close when the command's last process ends
    os.dup2(null, 1)
    os.dup2(null, 2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, status = os.waitpid(child, 0)
    end_all(child)
    code = os.waitstatus_to_exitcode(status)
    os._exit(128 - code if code < 0 else code)


if __name__ == "__main__":
    main()
