"""The system-call filter (seccomp-bpf) of a sandbox: what no command of an agent has any use for.

A filter is a list of 8-byte instructions of the classic BPF machine; see seccomp(2) and bpf(4).
"""

from __future__ import annotations

import errno
import platform
import struct

_X86, _ARM = 0xC000003E, 0xC00000B7

# name -> (x86_64, aarch64); -1: that machine has no such call.
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # could open sockets past this filter
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "pidfd_getfd": (438, 438),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "iopl": (172, -1),
    "ioperm": (173, -1),
}
_SOCKET, _CLONE, _CLONE3 = (41, 198), (56, 220), 435
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def _op(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def program(*, sockets: bool) -> bytes | None:
    """Return the filter for this machine, None if its architecture is not known here.

    Denies (EPERM) tracing, mounting, namespaces, kernel keys, io_uring, handles and the clock; without
    `sockets` also every socket (a pair of connected ones stays possible). Calls of another
    architecture kill the process.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        return None
    column = 0 if machine == "x86_64" else 1
    deny = _op(_RETURN, _ERRNO | errno.EPERM)
    out = _op(_LOAD, 4) + _op(_JUMP_EQ, _X86 if column == 0 else _ARM, 1, 0) + _op(_RETURN, _KILL)
    out += _op(_LOAD, 0)
    if column == 0:  # the x32 calls have numbers of their own
        out += _op(_JUMP_GE, 0x40000000, 0, 1) + deny
    numbers = [numbers[column] for numbers in _DENIED.values() if numbers[column] >= 0]
    if not sockets:
        numbers.append(_SOCKET[column])
    for number in numbers:
        out += _op(_JUMP_EQ, number, 0, 1) + deny
    # The C library falls back to clone, whose flags a filter can see.
    out += _op(_JUMP_EQ, _CLONE3, 0, 1) + _op(_RETURN, _ERRNO | errno.ENOSYS)
    out += _op(_JUMP_EQ, _CLONE[column], 0, 3) + _op(_LOAD, 16) + _op(_JUMP_SET, _NAMESPACES, 0, 1) + deny
    return out + _op(_RETURN, _ALLOW)
