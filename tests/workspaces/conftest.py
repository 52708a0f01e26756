"""Workspaces at every level that this machine has, and small sources."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import looper
from looper.records import Source
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import IS_LINUX, Level

SECRET = "the-hidden-tests-expect-42"
AS_ROOT = os.geteuid() == 0

LEVELS = [
    pytest.param(
        "bubblewrap",
        marks=pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    ),
    pytest.param("landlock", marks=pytest.mark.skipif(not IS_LINUX, reason="Landlock needs Linux")),
    "rlimits",
]

FILES = {
    ".gitignore": "*.log\n",
    "README.md": "shapes\n",
    "shapes/__init__.py": "",
    "shapes/area.py": "def area(a, b):\n    return a + b\n",
    "shapes/line.py": "def length(a, b):\n    return b - a",
}


@pytest.fixture(scope="session", params=LEVELS)
def workspace_level(request):
    return Level(request.param)


@pytest.fixture(scope="session")
def workspace(workspace_level):
    return LocalWorkspace(isolation=workspace_level)


@pytest.fixture
def source():
    return Source(name="shapes", files=FILES)


@pytest.fixture
def box(workspace, source):
    with workspace.open(source) as box:
        yield box


def git(folder, *words):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A repository with a base commit, a later one, a branch and a tag; returns (path, base, later)."""
    folder = tmp_path_factory.mktemp("origin")
    git(folder, "init", "-q", "-b", "main")
    (folder / "old.txt").write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "pkg").mkdir()
    (folder / "pkg" / "mod.py").write_text("x = 1\n")
    (folder / "link").symlink_to("pkg/mod.py")
    (folder / ".gitattributes").write_text("*.py text eol=crlf\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    base = git(folder, "rev-parse", "HEAD")
    (folder / "pkg" / "mod.py").write_text("x = 2  # the fix\n")
    git(folder, "commit", "-qam", "later")
    git(folder, "tag", "v2")
    return folder, base, git(folder, "rev-parse", "HEAD")


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
