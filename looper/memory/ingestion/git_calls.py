"""git on other people's repositories: no hooks, no monitors, no prompts, nothing of the user's configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from looper.errors import MachineError, WorkspaceError

_SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.attributesFile=/dev/null", "core.symlinks=false")
_SECONDS = 600.0
"""How long one command may take; a clone over a slow line is the longest."""


def git(*arguments: str, cwd: Path, text_in: str = "", okay: tuple[int, ...] = (0,)) -> bytes | None:
    """Run git in a folder and return its stdout; None if it ended with one of the other codes that are `okay`.

    Raises MachineError without git or when time is up, WorkspaceError with git's own words if it fails.
    """
    if shutil.which("git") is None:
        raise MachineError("git is not on PATH; install git 2.30 or newer (e.g. apt-get install git)")
    options = [part for option in (*_SAFE, "safe.directory=*") for part in ("-c", option)]
    environment = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:file",
        "GIT_LFS_SKIP_SMUDGE": "1",
        **{name: value for name, value in os.environ.items() if name.lower() in _NETWORK},
    }
    command = ["git", *options, *arguments]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, input=text_in.encode(), capture_output=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(
            f"git {arguments[0]} took more than {_SECONDS:.0f} s; clone it yourself, give the folder"
        ) from error
    if done.returncode == 0:
        return done.stdout
    if done.returncode in okay:
        return None
    words = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
    raise WorkspaceError(f"git {' '.join(arguments[:3])} failed: {words}")


_NETWORK = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"})
"""Variables without which some machines reach nobody."""


def line(*arguments: str, cwd: Path) -> str:
    """Return git's one line of answer; '' where it has none (no commit, no remote, no repository)."""
    out = git(*arguments, cwd=cwd, okay=(1, 2, 128))
    return out.decode(errors="replace").strip() if out is not None else ""
