"""git on other people's repositories: no links, no filters, no prompts, whoever owns the folder."""

from __future__ import annotations

import os
from pathlib import Path

from looper.hostgit import run

_OPTIONS = ("-c", "core.symlinks=false", "-c", "safe.directory=*")
_SECONDS = 600.0
"""How long one command may take; a clone over a slow line is the longest."""

_NETWORK = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir"})
"""Variables without which some machines reach nobody."""


def git(*arguments: str, cwd: Path, text_in: str = "", okay: tuple[int, ...] = (0,)) -> bytes | None:
    """Run git in a folder and return its stdout; None if it ended with one of the other codes that are `okay`.

    Raises MachineError without git or when time is up, WorkspaceError with git's own words if it fails.
    """
    variables = {"GIT_ALLOW_PROTOCOL": "https:http:file", "GIT_LFS_SKIP_SMUDGE": "1"}
    variables |= {name: value for name, value in os.environ.items() if name.lower() in _NETWORK}
    done = run(
        arguments,
        cwd=cwd,
        text_in=text_in.encode(),
        okay=(0, *okay),
        options=_OPTIONS,
        variables=variables,
        seconds=_SECONDS,
    )
    return done.stdout if done.returncode == 0 else None


def line(*arguments: str, cwd: Path) -> str:
    """Return git's one line of answer; '' where it has none (no commit, no remote, no repository)."""
    out = git(*arguments, cwd=cwd, okay=(1, 2, 128))
    return out.decode(errors="replace").strip() if out is not None else ""
