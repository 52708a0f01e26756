"""What a command leaves in its checkout to fool the host: history, git's settings, links, full disks, odd files."""

import contextlib
import threading
import time

import pytest

from looper.errors import WorkspaceError
from looper.records import Source
from looper.workspaces.sandbox import IS_LINUX
from tests.workspaces.conftest import AS_ROOT, SECRET

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="the attacks are Linux's")


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
