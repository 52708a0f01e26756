"""A command that runs as looper's own user kills the launcher that would end what it started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspaces.conftest import AS_ROOT, running

SCRIPT = """
import sys
from looper.records import Source
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import Level

workspace = LocalWorkspace(isolation=Level("rlimits"), scratch=sys.argv[1])
with workspace.open(Source(name="x", files={"a": "b"})) as box:
    print(box.run(sys.argv[2], seconds=20).exit_code)
    print(box.run("echo the box goes on", seconds=20).output)
"""
"""Run by a user who has no other user to give commands to: they run as this one."""

SUPERVISED = {
    "killed": "(setsid sleep {mark} >/dev/null 2>&1 &); sleep 0.2; kill -9 $PPID; sleep {mark}",
    "killed_by_a_daemon": "setsid bash -c 'sleep 0.2; kill -9 '$PPID'; sleep {mark}; sleep {mark}' & sleep {mark}",
}


@pytest.mark.parametrize("attack", SUPERVISED)
def test_what_a_command_started_ends_though_its_supervisor_was_killed(attack: str, tmp_path: Path) -> None:
    alone = ["unshare", "-Ur"] if AS_ROOT else []
    if subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("root cannot have a user namespace here, and without one gives commands to another user")
    mark = f"417.{os.getpid()}"
    command = [*alone, sys.executable, "-c", SCRIPT, str(tmp_path), SUPERVISED[attack].format(mark=mark)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["137", "the box goes on"], done
    assert running(f"sleep\0{mark}") == []
