"""git on the host: a clean environment, no hooks, no monitors, no configuration but ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from looper.errors import MachineError, WorkspaceError

SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.attributesFile=/dev/null")
"""Options that keep a repository's own configuration from starting a program."""

RAW_ATTRIBUTES = "* -text -filter -ident -working-tree-encoding !diff\n"
"""Content of info/attributes: files are their bytes, whatever the tree's .gitattributes say."""


def environment() -> dict[str, str]:
    """Return the environment of git on the host: nothing of the user's."""
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def git(arguments: Sequence[str], *, cwd: Path, text_in: bytes = b"", okay: Sequence[int] = (0,)) -> bytes:
    """Run git in a folder that no sandboxed command can write to and return its stdout; see `run`."""
    return run(arguments, cwd=cwd, text_in=text_in, okay=okay).stdout


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    text_in: bytes = b"",
    okay: Sequence[int] = (0,),
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run git and return how it ended: with one of the codes that are `okay`, within `seconds`.

    `options` stand before the command (`-c name=value`), `variables` are added to the environment.
    Raises MachineError if there is no git or time is up, WorkspaceError with git's own words if it fails.
    """
    if shutil.which("git") is None:
        raise MachineError("git is not on PATH; install git 2.30 or newer (e.g. apt-get install git)")
    command = ["git", *SAFE, *options, *arguments]
    known = environment() | dict(variables or {})
    try:
        done = subprocess.run(command, cwd=cwd, env=known, input=text_in, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise MachineError(
            f"git {arguments[0]} took more than {seconds:.0f} s; run it by hand and give the folder"
        ) from error
    if done.returncode not in okay:
        words = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise WorkspaceError(f"git {' '.join(arguments[:4])} failed: {words}")
    return done
