"""A campaign as a git branch: each version that ran is a commit; kept ones stay, the others are found under a tag."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from looper.benchmarks.research.improvable import Improvable
from looper.campaigns.campaign import PROGRAM
from looper.campaigns.trials import Fate, Played
from looper.errors import StoreError
from looper.records import digest_of

SHORT = 7
_FIXED = {
    "GIT_AUTHOR_NAME": "looper",
    "GIT_AUTHOR_EMAIL": "looper@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "looper",
    "GIT_COMMITTER_EMAIL": "looper@localhost",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
"""The same campaign gives the same commits."""


def leave_branch(place: Path, one: Played, benchmark: Improvable) -> dict[str, str]:
    """Make a repository whose branch is the campaign; return the commit of each program by its digest.

    It is a clone of the user's repository, if there is one, which stays as it is. A version that was kept is a commit
    of the branch; one that was not is committed, tagged `tried/CAMPAIGN/NUMBER`, and taken back. Raises StoreError for
    what git refuses.
    """
    place = place.resolve()  # git is run in other folders
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if benchmark.repository:
        _git(place.parent, "clone", "--quiet", "--no-hardlinks", benchmark.repository, str(place))
        _git(place, "checkout", "--quiet", "-B", f"{benchmark.branches}/{one.name}", benchmark.revision)
    else:
        _git(place.parent, "init", "--quiet", f"--initial-branch={benchmark.branches}/{one.name}", str(place))
        for path, text in benchmark.files().items():
            (place / path).write_text(text, encoding="utf-8")
        (place / ".gitignore").write_text("results.tsv\nrun.log\n__pycache__/\n", encoding="utf-8")
        _git(place, "add", "--all")
        _git(place, "commit", "--quiet", "--message", "baseline")
    commits = {digest_of(benchmark.files()[PROGRAM])[:7]: _head(place)}
    for trial in one.trials:
        if not trial.commit:  # it never ran
            continue
        _git(place, "apply", "--whitespace=nowarn", "-", text=trial.patch)
        _git(place, "commit", "--quiet", "--allow-empty", "--all", "--message", trial.description)
        commits.setdefault(trial.commit, _head(place))
        if trial.fate is not Fate.KEEP:
            _git(place, "tag", "--force", f"tried/{one.name}/{trial.number}")
            _git(place, "reset", "--quiet", "--hard", "HEAD~1")
    return commits


def with_commits(table: str, commits: Mapping[str, str]) -> str:
    """Return results.tsv with git's commits in the place of the programs' digests."""
    head, *rows = table.splitlines()
    parts = [row.partition("\t") for row in rows]
    return "\n".join([head, *(f"{commits.get(name, name)}{tab}{rest}" for name, tab, rest in parts)]) + "\n"


def _head(place: Path) -> str:
    return _git(place, "rev-parse", "HEAD").strip()[:SHORT]


def _git(place: Path, *words: str, text: str = "") -> str:
    done = subprocess.run(
        ["git", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", "-C", str(place), *words],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _FIXED,
        errors="surrogateescape",
    )
    if done.returncode != 0:
        raise StoreError(f"the branch of a campaign cannot be made in {place}: git {words[0]}: {done.stderr.strip()}")
    return done.stdout
