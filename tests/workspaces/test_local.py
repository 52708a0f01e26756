"""A box is fresh, clean, bounded, and gives back what changed in it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from looper.errors import ConfigError, MachineError, SandboxError, WorkspaceError
from looper.records import Source
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import Level
from looper.workspaces.scratch import Scratch, remove_stale


def test_nothing_can_be_deleted_through_what_a_scratch_folder_shows(open_folder, tmp_path):
    folder = tmp_path / "closed" / "installation"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)  # so that the boxes' user needs another way in, where there is such a user
    (folder / "kept.txt").write_text("kept")
    scratch = Scratch(str(open_folder))
    try:
        shown = scratch.reachable(folder)
        if shown != folder and shown is not None:
            assert (shown / "kept.txt").read_text() == "kept"
            shutil.rmtree(scratch.root, ignore_errors=True)  # as somebody does who sweeps /tmp
        assert (folder / "kept.txt").read_text() == "kept"
    finally:
        scratch.close()


def test_a_box_is_clean_and_holds_one_commit(box):
    assert box.run("git status --porcelain", seconds=10).output == ""
    assert box.run("git log --oneline --all | wc -l", seconds=10).output.strip() == "1"
    assert box.run('git grep -n "def area"', seconds=10).output == "shapes/area.py:1:def area(a, b):\n"
    assert box.diff() == ""


def test_python_is_there_without_packages(workspace, box):
    done = box.run("python -c 'import sys; print(sys.version_info[:2])'", seconds=10)
    assert done.output == f"{sys.version_info[:2]}\n"
    if workspace.level != "rlimits":  # there they are, if the installation itself has some
        assert box.run("python3 -c 'import pip'", seconds=10).exit_code == 1


def test_exit_codes_and_streams(box):
    done = box.run("echo out; echo err >&2; exit 3", seconds=10)
    assert (done.exit_code, sorted(done.output.split())) == (3, ["err", "out"])
    assert box.run("cat", seconds=10).exit_code == 0  # stdin is empty
    assert box.run("kill -9 $$", seconds=10).exit_code == 137
    assert box.run("a\0b", seconds=10).exit_code == 126


def test_output_is_capped_head_and_tail(box):
    done = box.run("echo first; seq 100000; echo last", seconds=10)
    assert len(done.output) < 8100
    assert done.output.startswith("first\n") and done.output.endswith("last\n")
    assert "bytes cut" in done.output


def test_endless_output_is_stopped_at_the_time_limit(box):
    start = time.monotonic()
    done = box.run("yes", seconds=0.7)
    assert done.timed_out and done.exit_code == 124
    assert len(done.output) < 8100 and time.monotonic() - start < 6


def test_the_folder_tmp_lasts_for_the_session(box):
    box.run("echo kept > $HOME/note", seconds=10)
    assert box.run("cat $HOME/note", seconds=10).output == "kept\n"


def test_diff_holds_every_kind_of_change(workspace, source, box):
    box.write("shapes/new/deep.py", "y = 1\n")
    assert box.read("shapes/new/deep.py") == "y = 1\n"
    commands = [
        "echo '# end' >> shapes/line.py",
        "rm README.md",
        "chmod +x shapes/area.py",
        "ln -s area.py shapes/link",
        "printf '\\377\\000x' > data.bin",
        "printf 'caf\\351\\n' > latin.txt",
        "touch empty 'a b'",
        "echo ignored > run.log",
        "mkdir -p shapes/__pycache__ && touch shapes/__pycache__/area.pyc",
        "mkdir sub && cd sub && git init -q . && echo z > z.txt",
    ]
    assert box.run(" && ".join(commands), seconds=10).exit_code == 0
    patch = box.diff()
    for name in (
        "deep.py",
        "line.py",
        "README.md",
        "area.py",
        "link",
        "data.bin",
        "latin.txt",
        "empty",
        "a b",
        "z.txt",
    ):
        assert name in patch
    assert "run.log" not in patch and "pyc" not in patch and "sub/.git" not in patch
    with workspace.open(source, patch) as second:
        assert second.diff() == patch
        assert (
            second.run("od -An -tx1 data.bin latin.txt", seconds=10).output.split() == "ff 00 78 63 61 66 e9 0a".split()
        )


def test_commits_do_not_hide_changes(box):
    box.run("echo '# x' >> shapes/area.py && git commit -qam work && git gc -q", seconds=10)
    assert "+# x" in box.diff()


def test_a_patch_that_does_not_apply_is_an_error(workspace, source):
    patch = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-other\n+text\n"
    with pytest.raises(WorkspaceError, match="README"), workspace.open(source, patch):
        pass


def test_sessions_do_not_see_each_other(workspace, source):
    with workspace.open(source) as first:
        first.run("echo mine > mine.txt; echo mine > $HOME/mine.txt", seconds=10)
        with workspace.open(source) as second:
            assert second.diff() == ""
            assert second.run("ls . $HOME | grep mine", seconds=10).output == ""


def test_boxes_of_a_repository_hold_its_base_commit_alone(workspace, repository):
    folder, base, later = repository
    source = Source(name="origin", repository=str(folder), commit=base)
    for _ in range(2):
        with workspace.open(source) as box:
            assert box.run("git rev-parse HEAD", seconds=10).output.strip() == base
            assert box.run("git status --porcelain; git remote; git tag", seconds=10).output == ""
            assert box.run(f"git cat-file -e {later}", seconds=10).exit_code != 0
            assert box.run("git log --oneline --all", seconds=10).output.count("\n") == 1
            assert box.read("link") == "x = 1\n"
            assert box.diff() == ""
            box.run("echo 'x = 3' > pkg/mod.py; rm old.txt", seconds=10)
            patch = box.diff()
            assert "+x = 3" in patch and "deleted file" in patch
    with workspace.open(source, patch) as box:
        assert box.diff() == patch


def test_unknown_commits_and_sources_are_errors(workspace, repository):
    for source, words in (
        (Source(name="o", repository=str(repository[0]), commit="0" * 40), "fetch"),
        (Source(name="o", repository="/nonexistent", commit="0" * 40), "no repository"),
        (Source(name="o", repository=str(repository[0]), commit="abc"), "full commit hash"),
        (Source(name="o"), "either files or a repository"),
        (Source(name="o", files={"../x": ""}), "leads outside"),
        (Source(name="o", files={".git/config": ""}), "no plain relative path"),
        (Source(name="o", files={"a": "", "a/b": ""}), "file and a folder"),
    ):
        with pytest.raises(WorkspaceError, match=words), workspace.open(source):
            pass


def test_the_interpreter_of_a_task_is_found_with_its_packages(workspace, open_folder, source):
    folder = open_folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "theirs.py").write_text("value = 7\n")
    try:
        with workspace.open(source.model_copy(update={"python": str(folder / "bin" / "python")})) as box:
            done = box.run("python -c 'import theirs, sys; print(theirs.value, sys.prefix)'", seconds=10)
            assert done.output == f"7 {folder}\n"
    except SandboxError as error:  # without its own view of the files, root's other user may not reach ours
        assert workspace.level != "bubblewrap" and os.geteuid() == 0
        assert "python" in str(error)


def test_threads_share_a_workspace(workspace, source):
    def session(number):
        with workspace.open(source) as box:
            box.write("n.txt", f"{number}\n")
            return box.run("cat n.txt", seconds=20).output

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(session, range(18))) == [f"{n}\n" for n in range(18)]
    assert threading.active_count() < 20


def test_options_are_checked():
    with pytest.raises(ConfigError, match="processes=0"):
        LocalWorkspace(processes=0)


def test_a_level_that_cannot_be_had_is_refused(tmp_path, monkeypatch):
    (tmp_path / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        _ = LocalWorkspace(isolation=Level.bubblewrap, disk_mb=511).level


def test_auto_takes_the_strongest_level_and_says_why_not_more(workspace):
    auto = LocalWorkspace()
    assert auto.level in ("bubblewrap", "landlock", "rlimits")
    assert list(auto.reasons) == ["bubblewrap", "landlock", "rlimits"][: len(auto.reasons)]


@pytest.fixture
def open_folder():
    """A folder that also an unprivileged user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_scratch_folder_out_of_reach_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    if os.geteuid() != 0:  # commands run as ourselves, who can reach it
        assert LocalWorkspace(scratch=str(tmp_path)).level
        return
    with pytest.raises(MachineError, match="scratch=PATH"):
        _ = LocalWorkspace(scratch=str(tmp_path)).level
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing_for_long(open_folder):
    tmp_path = open_folder
    script = (
        "import sys, time; from looper.workspaces.local import *; from looper.records import Source\n"
        f"w = LocalWorkspace(isolation=Level.rlimits, scratch={str(tmp_path)!r})\n"
        "with w.open(Source(name='x', files={'a': 'b'})) as box:\n"
        "    print('open', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        assert remove_stale(tmp_path) == []  # it is alive
        process.send_signal(signal.SIGKILL)
    assert len(remove_stale(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text() if Path("/proc/mounts").exists() else True


def test_a_stale_folder_that_cannot_be_removed_does_not_stop_a_run(open_folder):
    stale = open_folder / "looper-box-stale"
    (stale / "mounted").mkdir(parents=True)
    (stale / "lock").touch()
    code = f"from looper.workspaces.scratch import Scratch; s = Scratch({str(open_folder)!r}); print(s.root); s.close()"
    again = f"mount -t tmpfs none {stale}/mounted && unshare -Urm {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(open_folder / "looper-box-"))
    assert f"{stale} of a killed run cannot be removed" in done.stderr
    assert [path.name for path in open_folder.iterdir()] == ["looper-box-stale"]


def test_what_it_costs(workspace, source, capsys):
    rows = []

    def timed(name, function, times=3):
        best = float("inf")
        for _ in range(times):
            start = time.perf_counter()
            result = function()
            best = min(best, time.perf_counter() - start)
        rows.append(f"{name} {1000 * best:.1f} ms")
        return result

    fresh = source.model_copy(update={"files": {**source.files, "t.txt": str(time.time())}})
    first = workspace.open(fresh)
    box = timed("first open", first.__enter__, 1)
    second = workspace.open(fresh)
    timed("second open", second.__enter__, 1)
    for command in ("true", 'git grep -n "def x"', "python -c pass"):
        timed(command, lambda command=command: box.run(command, seconds=10))
    timed("close", lambda: second.__exit__(None, None, None), 1)
    first.__exit__(None, None, None)
    with capsys.disabled():
        print(f"\n{workspace.level}: " + ", ".join(rows))
