"""Workspaces at every level that this machine has, and small sources."""

import shutil
import subprocess

import pytest

from looper.records import Source
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import IS_LINUX, Level

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
