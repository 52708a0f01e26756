"""What a command in a box tries against its host, under every level of isolation.

Each attack prints PWNED (or leaves a trace that the host sees) if it succeeds. The table says which
level lets it succeed: `rlimits` protects neither files nor the network. `unsure` names levels at which
the outcome depends on the machine, so nothing is asserted there.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from looper.records import Source
from looper.workspaces.sandbox import IS_LINUX
from tests.workspaces.conftest import AS_ROOT, SECRET, running

OPEN = frozenset({"rlimits"})
"""Levels without protection of files and network."""
SAME_USER = frozenset() if AS_ROOT else OPEN
"""Levels at which commands run as the user who started looper: none, if that is root."""

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="the attacks are Linux's")


@dataclass(frozen=True, kw_only=True)
class Attack:
    name: str
    shell: str = ""
    python: str = ""
    allowed: frozenset = frozenset()
    unsure: frozenset = frozenset()


READ = "cat {path} 2>/dev/null | grep -q {secret} && echo PWNED"
CONNECT = "import socket\ns = socket.socket({family})\ns.settimeout(2)\ns.connect({address})\nprint('PWN' + 'ED')\n"
CALL = "import ctypes\nif ctypes.CDLL(None).syscall({call}) >= 0: print('PWN' + 'ED')\n"

ATTACKS = [
    Attack(
        name="tcp_to_the_host",
        python=CONNECT.format(family="socket.AF_INET", address="('127.0.0.1', {port})"),
        allowed=OPEN,
    ),
    Attack(
        name="tcp_over_ipv6",
        python=CONNECT.format(family="socket.AF_INET6", address="('::1', {port6})"),
        unsure=OPEN,
    ),
    Attack(
        name="udp_to_the_host",
        python="import socket\nsocket.socket(2, 2).sendto(b'udp', ('127.0.0.1', {udp}))\n",
        allowed=OPEN,
    ),
    Attack(
        name="name_lookup",
        python="import socket\ns = socket.socket(2, 2)\ns.connect(('192.0.2.53', 53))\nprint('PWN' + 'ED')\n",
        unsure=OPEN,
    ),
    Attack(
        name="unix_socket_of_the_host",
        python=CONNECT.format(family="socket.AF_UNIX", address="'{unix}'"),
        allowed=OPEN,
    ),
    Attack(
        name="abstract_socket_of_the_host",
        python=CONNECT.format(family="socket.AF_UNIX", address="'\\0{abstract}'"),
        allowed=OPEN,
    ),
    Attack(name="write_outside", shell="echo x > {out}/written && echo PWNED", allowed=OPEN),
    Attack(name="overwrite_a_file", shell="echo x >> {out}/victim && echo PWNED", allowed=OPEN),
    Attack(name="write_to_the_system", shell="touch /usr/bin/x /etc/x /x 2>/dev/null && echo PWNED"),
    Attack(name="read_ssh_keys", shell=READ.format(path="{home}/.ssh/id_ed25519", secret=SECRET), allowed=OPEN),
    Attack(name="read_outputs", shell=READ.format(path="{outputs}/episodes.jsonl", secret=SECRET), allowed=OPEN),
    Attack(name="read_hidden_tests", shell=READ.format(path="{hidden}", secret=SECRET), allowed=SAME_USER),
    Attack(name="read_another_box", shell=READ.format(path="{other}/secret.txt", secret=SECRET), allowed=OPEN),
    Attack(name="list_boxes", shell="ls {boxes} && echo PWNED", allowed=SAME_USER),
    Attack(
        name="import_looper",
        python="import sys\nsys.path[:0] = {paths}\nimport looper.errors\nprint('PWN' + 'ED')\n",
        unsure=OPEN,
    ),
    Attack(name="read_loopers_source", shell="cat {package}/records.py | grep -q Task && echo PWNED", unsure=OPEN),
    Attack(name="read_the_memory_of_the_host", shell="cat /proc/{pid}/mem && echo PWNED"),
    Attack(
        name="environment_of_the_host",
        shell=READ.format(path="/proc/{pid}/environ", secret="{marker}"),
        allowed=SAME_USER,
    ),
    Attack(name="environment_of_all", shell=READ.format(path="/proc/*/environ", secret="{marker}"), allowed=SAME_USER),
    Attack(name="own_environment", shell="env | grep -q {marker} && echo PWNED"),
    Attack(name="root_of_init", shell=READ.format(path="/proc/1/root{home}/.ssh/id_ed25519", secret=SECRET)),
    Attack(
        name="folder_of_the_host", shell=READ.format(path="/proc/{pid}/cwd/../*/secret", secret=SECRET), unsure=OPEN
    ),
    Attack(name="signal_the_host", shell="kill -0 {pid} && echo PWNED", allowed=SAME_USER),
    Attack(
        name="trace_a_process",
        python=CALL.format(call="{ptrace}, 16, {victim}, 0, 0"),
        unsure=SAME_USER,
    ),
    Attack(name="remount", shell="mount -o remount,rw,bind / && echo PWNED; mount -t tmpfs x /usr && echo PWNED"),
    Attack(name="nested_namespaces", shell="unshare -Urm true && echo PWNED", unsure=OPEN),
    Attack(name="become_root", shell="python -c 'import os; os.setuid(0)' && echo PWNED"),
    Attack(
        name="gain_privileges",
        shell="cd /proc/self; grep -q 'NoNewPrivs:.*1' status && grep -q 'CapEff:.*0000000000' status || echo PWNED",
    ),
    Attack(name="kernel_settings", shell="echo 1 > /proc/sys/kernel/panic && echo PWNED"),
    Attack(name="kernel_keys", python=CALL.format(call="{keyctl}, 0, -3, 1"), unsure=OPEN),
    Attack(name="io_uring", python=CALL.format(call="425, 4, bytes(120)"), unsure=OPEN),
    Attack(name="make_a_device", shell="mknod disk b 254 0 && echo PWNED; head -c1 /dev/vda /dev/sda && echo PWNED"),
    Attack(
        name="fork_bomb",
        python=(
            "import os, time\nborn = 0\ntry:\n    for _ in range(200):\n        if os.fork() == 0:\n"
            "            time.sleep(5); os._exit(0)\n        born += 1\nexcept OSError: pass\n"
            "print(born, 'PWN' + 'ED' if born >= 200 else '')\n"
        ),
    ),
    Attack(name="use_up_memory", python="x = bytearray(6 << 30)\nprint('PWN' + 'ED')\n"),
    Attack(name="huge_file", shell="truncate -s 1G big && echo PWNED"),
    Attack(name="shared_memory", shell="head -c 1M /dev/zero > /dev/shm/{marker}", allowed=OPEN),
    Attack(name="lingering_process", shell="(setsid nohup sleep 4711.{pid} >/dev/null 2>&1 &) ; sleep 0.1"),
    Attack(
        name="lingering_daemon",
        python=(
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
            "    if os.fork() == 0:\n        os.closerange(0, 64)\n"
            "        os.execv('/bin/sleep', ['sleep', '4711.{pid}'])\n    os._exit(0)\ntime.sleep(0.2)\n"
        ),
    ),
    Attack(name="kill_the_supervisor", shell="(setsid sleep 4711.{pid} >/dev/null 2>&1 &) ; sleep 0.1; kill -9 $PPID"),
]


def succeeded(host, box, attack, values):
    """Run an attack and return whether it succeeded, by its own words or by its traces."""
    if attack.python:
        box.write("attack.py", attack.python.format(**values))
        done = box.run("python attack.py", seconds=15)
    else:
        done = box.run(attack.shell.format(**values), seconds=15)
    assert not done.timed_out, done.output
    traces = [word for word in ("written",) if (host.out / word).exists()]
    (host.out / "written").unlink(missing_ok=True)
    with contextlib.suppress(TimeoutError):
        traces.append(host.udp.recv(16))
    traces += running(f"4711.{values['pid']}")
    shared = Path("/dev/shm", values["marker"])
    traces += [shared] if shared.exists() else []
    shared.unlink(missing_ok=True)
    return "PWNED" in done.output or bool(traces), done.output


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(host, strict, source, attack):
    other_source = Source(name="other", files={"secret.txt": SECRET})
    with strict.open(other_source) as other, strict.open(source) as box:
        root = other._place.root
        scratch = root.parents[2]
        hidden = scratch / "host" / "hidden.py"
        hidden.write_text(SECRET)
        values = {**host.values, "other": root, "boxes": root.parents[1], "hidden": hidden}
        won, output = succeeded(host, box, attack, values)
    if strict.level not in attack.unsure:
        assert won == (strict.level in attack.allowed), output
