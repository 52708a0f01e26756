"""What a command in a box tries against its host, under every level of isolation.

Each attack prints PWNED (or leaves a trace that the host sees) if it succeeds. The table says which
level lets it succeed: `rlimits` protects neither files nor the network. `unsure` names levels at which
the outcome depends on the machine, so nothing is asserted there.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import looper
from looper.errors import WorkspaceError
from looper.records import Source
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import IS_LINUX

SECRET = "the-hidden-tests-expect-42"
AS_ROOT = os.geteuid() == 0
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
]


@dataclass(kw_only=True)
class Host:
    """What there is to attack."""

    values: dict
    udp: socket.socket
    out: Path


def serve(family, address):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    server.settimeout(0.2)
    return server


@pytest.fixture(scope="module")
def host():
    with contextlib.ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="victim-"))
        stack.callback(shutil.rmtree, root)
        root.chmod(0o755)
        for name in ("home/.ssh", "outputs", "out"):
            (root / name).mkdir(parents=True)
        (root / "out").chmod(0o777)
        for name in ("home/.ssh/id_ed25519", "outputs/episodes.jsonl", "out/victim", "out/secret"):
            (root / name).write_text(SECRET)
        (root / "out" / "victim").chmod(0o666)
        tcp = stack.enter_context(serve(socket.AF_INET, ("127.0.0.1", 0)))
        unix = stack.enter_context(serve(socket.AF_UNIX, str(root / "out" / "socket")))
        (root / "out" / "socket").chmod(0o777)
        abstract = f"looper-test-{os.getpid()}"
        stack.enter_context(serve(socket.AF_UNIX, f"\0{abstract}"))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.01)
        port6 = tcp.getsockname()[1]
        with contextlib.suppress(OSError):
            port6 = stack.enter_context(serve(socket.AF_INET6, ("::1", 0))).getsockname()[1]
        marker = f"looper-secret-{os.getpid()}"
        victim = stack.enter_context(subprocess.Popen(["sleep", "300"], env={"MARKER": marker}))
        stack.callback(victim.kill)
        x86 = os.uname().machine == "x86_64"
        package = Path(looper.__file__).parent
        values = {
            "port": tcp.getsockname()[1],
            "port6": port6,
            "udp": udp.getsockname()[1],
            "unix": unix.getsockname(),
            "abstract": abstract,
            "out": root / "out",
            "home": root / "home",
            "outputs": root / "outputs",
            "package": package,
            "paths": [str(package.parent), *(path for path in sys.path if path)],
            "pid": victim.pid,
            "victim": victim.pid,
            "marker": marker,
            "ptrace": 101 if x86 else 117,
            "keyctl": 250 if x86 else 219,
        }
        yield Host(values=values, udp=udp, out=root / "out")


@pytest.fixture(scope="module")
def strict(request, workspace_level):
    return LocalWorkspace(isolation=workspace_level, processes=64, disk_mb=64, file_mb=48, memory_mb=2048)


def running(word):
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if word.encode() in (folder / "cmdline").read_bytes():
                    found.append(folder.name)
    return found


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


def test_later_history_is_out_of_reach(strict, repository):
    folder, base, later = repository
    with strict.open(Source(name="o", repository=str(folder), commit=base)) as box:
        assert box.run(f"git cat-file -e {later} && echo PWNED", seconds=10).exit_code != 0
        objects = box.run("git cat-file --batch-all-objects --batch-check | grep -c commit", seconds=10)
        assert objects.output.strip() == "1"
        done = box.run(f"git fetch -q {folder} main && echo PWNED; ls .git/objects/info .git/logs", seconds=10)
        assert "alternates" not in done.output and "HEAD" not in done.output
        if strict.level != "rlimits" or AS_ROOT:
            assert "PWNED" not in done.output


def test_git_tricks_neither_run_on_the_host_nor_hide_changes(host, strict, source):
    run = f"touch {host.out}/ran"
    config = (
        f"[core]\n\tfsmonitor = {run}\n\thooksPath = hooks\n\tpager = {run}\n\tworktree = /etc\n"
        f"[diff]\n\texternal = {run}\n"
        f'[diff "x"]\n\ttextconv = {run}\n\tcommand = {run}\n[filter "x"]\n\tclean = {run}\n\tsmudge = {run}\n'
    )
    with strict.open(source) as box:
        box.run(
            "git update-index --assume-unchanged shapes/area.py; git update-index --skip-worktree README.md", seconds=10
        )
        box.write(".git/config", box.read(".git/config") + config)
        box.write(".gitattributes", "* filter=x diff=x\n")
        box.write(".gitignore", "*\n")
        box.write(".git/info/exclude", "*\n")
        box.write(".git/objects/info/alternates", "/nonexistent\n")
        box.write("shapes/area.py", "def area(a, b):\n    return a * b\n")
        box.write("README.md", "changed\n")
        box.write("new.txt", "new\n")
        for name in ("pre-commit", "post-index-change", "fsmonitor-watchman"):
            box.write(f"hooks/{name}", f"#!/bin/sh\n{run}\n")
        patch = box.diff()
        box.run("rm -rf .git; ln -s /etc .git", seconds=10)
        assert box.diff() == patch
    assert not (host.out / "ran").exists()
    for line in ("+    return a * b", "+changed", "+new"):
        assert line in patch
    with strict.open(source, patch) as second:
        assert second.read("shapes/area.py") == "def area(a, b):\n    return a * b\n"
    assert not (host.out / "ran").exists()


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "file", "folder/id_ed25519", "loop", "pipe", "up/x"]
)
def test_paths_lead_nowhere(host, strict, source, path):
    home = host.values["home"]
    with strict.open(source) as box:
        box.run(
            f"ln -s {home}/.ssh/id_ed25519 file; ln -s {home}/.ssh folder; "
            "ln -s loop loop; mkfifo pipe; ln -s ../.. up",
            seconds=10,
        )
        with pytest.raises((WorkspaceError, FileNotFoundError)):
            box.read(path)
        with pytest.raises(WorkspaceError):
            box.write(path, "x")
        assert SECRET not in box.diff()
    assert (home / ".ssh" / "id_ed25519").read_text() == SECRET


def test_links_inside_are_followed(strict, source):
    with strict.open(source) as box:
        box.run("ln -s shapes/../README.md inside; ln -s shapes folder", seconds=10)
        assert box.read("inside") == "shapes\n"
        assert box.read("folder/area.py").startswith("def area")
        with pytest.raises(IsADirectoryError):
            box.read("folder")
        with pytest.raises(IsADirectoryError):
            box.write("shapes", "x")
        with pytest.raises(FileNotFoundError):
            box.read("shapes/none.py")
        with pytest.raises(FileNotFoundError):
            box.read("README.md/none")


def test_a_racing_link_is_never_followed(host, strict, source):
    """While a command swaps a folder for a link to the host's, reads see the box or an error."""
    with strict.open(source) as box:
        make = "mkdir -p a; echo mine > a/id_ed25519; ln -sfn {home}/.ssh b; "
        swap = make + "while :; do mv -T a c; mv -T b a; mv -T a b; mv -T c a; done"
        worker = threading.Thread(target=box.run, args=(swap.format(**host.values),), kwargs={"seconds": 0.5})
        worker.start()
        seen = set()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            with contextlib.suppress(WorkspaceError, FileNotFoundError):
                seen.add(box.read("a/id_ed25519"))
        worker.join()
    assert seen <= {"mine\n", ""}


def test_a_full_disk_stops_at_the_limit(strict, source):
    with strict.open(source) as box:
        box.run(
            "for i in $(seq 60); do head -c 12M /dev/zero > $i; head -c 12M /dev/zero > ~/$i; done; true",
            seconds=20,
        )
        sizes = [path.stat().st_size for path in box._place.root.parent.rglob("*") if path.is_file()]
        assert sum(sizes) < (65 << 20 if AS_ROOT else 700 << 20)
        assert AS_ROOT or box.run("true", seconds=5).exit_code == 125
        with contextlib.suppress(WorkspaceError):
            box.write("more.txt", "x" * 1000)
        assert isinstance(box.diff(), str)


def test_hostile_trees_do_not_break_the_host(strict, source):
    with strict.open(source) as box:
        deep = "for i in $(seq 120); do mkdir d; cd d; done; echo x > f"
        box.run(f"{deep}; cd /; mkfifo $OLDPWD/p; true", seconds=10)
        box.run(
            "mkdir locked; echo x > locked/f; chmod 000 locked/f locked; mkfifo pipe; touch $'new\\nline' $'\\377'",
            seconds=10,
        )
        patch = box.diff()
        assert "locked/f" in patch and "pipe" not in patch
        with pytest.raises(WorkspaceError, match="larger than the limit"):
            box.run("head -c 2M /dev/zero > big", seconds=10)
            box.read("big")
