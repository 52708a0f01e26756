"""A user's own autoresearch checkout: train.py is edited, prepare.py fixes data, clock and score, val_bpb is printed.

What holds: the checkout is never written to, each run has a fresh clone of one commit with train.py alone replaced, and
files that a run changes are found by their digests. What does not: the score is the line that the run prints itself.
"""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from looper.benchmarks.nanochat.outside import Outside
from looper.benchmarks.research.contract import EDITABLE, objection
from looper.benchmarks.research.ending import printed, refused, why_it_died
from looper.benchmarks.research.measurement import LOG_CHARS, Cheat, Measurement
from looper.errors import ConfigError, WorkspaceError
from looper.parsing import parsed
from looper.records import CommandResult, Source

SHOWN_BYTES = 100_000
"""Size of the files that an agent is shown; lock files and pictures are larger or no text."""
FIXED = {
    "evaluate_bpb": Cheat.SCORE,
    "make_dataloader": Cheat.PREPARE,
    "Tokenizer": Cheat.PREPARE,
    "MAX_SEQ_LEN": Cheat.PREPARE,
    "EVAL_TOKENS": Cheat.SCORE,
    "TIME_BUDGET": Cheat.LONGER,
}
"""Names of prepare.py that train.py may use and not bind anew."""
OVER = 1.1
"""Share of the budget beyond which the printed training_seconds are no last step any more."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """One commit of a checkout. Raises ConfigError for a folder that is none, or that has uncommitted changes."""

    folder: Path
    commit: str
    python: Path

    @property
    def program(self) -> str:
        """The unchanged train.py."""
        return self._text(EDITABLE)

    @property
    def seconds(self) -> float | None:
        """The TIME_BUDGET of prepare.py; None where it has no such number."""
        for node in parsed(self._text("prepare.py")).body:
            names = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
            if "TIME_BUDGET" in names and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                return float(node.value.value) if isinstance(node.value.value, int | float) else None
        return None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a run beside train.py: the other files, and the Python."""
        rows = self._git("ls-tree", "-r", self.commit).splitlines()
        kept = [row for row in rows if row.split("\t", 1)[1] != EDITABLE]
        return {"files": hashlib.sha256("\n".join(kept).encode()).hexdigest(), "python": str(self.python)}

    def files(self) -> dict[str, str]:
        """Return the files that an agent is shown: tracked ones that are UTF-8 and not long."""
        found = {}
        for row in self._git("ls-tree", "-r", "-l", self.commit).splitlines():
            about, path = row.split("\t", 1)
            size = about.split()[3]
            if about.split()[1] == "blob" and size.isdigit() and int(size) <= SHOWN_BYTES:
                try:
                    found[path] = self._bytes(path).decode()
                except UnicodeDecodeError:
                    continue
        return found

    def measure(self, train: str, *, seed: int, budget: float, limit_seconds: float) -> Measurement:
        """Run one version in a clone and read the line that it prints."""
        found = objection(train, fixed=FIXED, seeds=False)
        if found:
            return Measurement(status="refused", cheat=found[0], reason=found[1])
        with Outside(self.python).open(Source(name="autoresearch")) as box:
            self._clone(box.root)
            box.write(EDITABLE, train)
            before = _digests(box.root, self._tracked())
            done = box.run(f"AUTORESEARCH_SEED={seed} exec python {EDITABLE}", seconds=limit_seconds)
            changed = [path for path, digest in _digests(box.root, self._tracked()).items() if digest != before[path]]
            return _measured(done, changed, budget=budget, limit=limit_seconds)

    def _clone(self, place: Path) -> None:
        _git(self.folder, "clone", "--quiet", "--no-checkout", "--no-hardlinks", str(self.folder), str(place))
        _git(place, "checkout", "--quiet", "--detach", self.commit)
        _git(place, "remote", "remove", "origin")

    def _tracked(self) -> list[str]:
        return sorted({*self._git("ls-tree", "-r", "--name-only", self.commit).splitlines(), EDITABLE})

    def _text(self, path: str) -> str:
        return self._bytes(path).decode("utf-8", "replace")

    def _bytes(self, path: str) -> bytes:
        command = ["git", "-C", str(self.folder), "show", f"{self.commit}:{path}"]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def _git(self, *words: str) -> str:
        return _git(self.folder, *words)


@lru_cache(maxsize=8)
def checkout(repo: str, python: str) -> Checkout:
    """Return what a path names at its HEAD, the same as long as this process lives. Raises ConfigError."""
    folder = Path(repo).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"benchmark.repo={repo} is no folder; give the path of an autoresearch checkout, or leave it empty for "
            "the bundled train.py"
        )
    try:
        commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}").strip()
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no").strip()
        tracked = _git(folder, "ls-tree", "--name-only", commit).split("\n")
    except WorkspaceError as error:
        raise ConfigError(
            f"benchmark.repo={repo} is no git repository with a commit ({error}); in it: git init, git add, git commit"
        ) from error
    missing = [name for name in (EDITABLE, "prepare.py") if name not in tracked]
    if missing:
        raise ConfigError(
            f"benchmark.repo={repo} has no {' and no '.join(missing)} at its HEAD; an autoresearch checkout has "
            "train.py and prepare.py in its root"
        )
    if dirty:
        raise ConfigError(
            f"benchmark.repo={repo} has changes that are not committed ({' '.join(dirty.split())}); commit or stash "
            "them: a campaign starts from HEAD"
        )
    return Checkout(folder=folder, commit=commit, python=_interpreter(folder, python))


def _interpreter(folder: Path, python: str) -> Path:
    """Return the Python that runs train.py: the given one, else the checkout's environment, else looper's own."""
    if python:
        path = Path(python).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"benchmark.python={python} is no file; give the path of a Python, or leave it empty")
        return path
    own = folder / ".venv" / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def _measured(done: CommandResult, changed: list[str], *, budget: float, limit: float) -> Measurement:
    """Read what a run printed."""
    about = {
        "train_seconds": _figure(done.output, "training_seconds"),
        "peak_memory_mb": _figure(done.output, "peak_vram_mb"),
        "steps": int(_figure(done.output, "num_steps") or 0) or None,
        "log": done.output[-LOG_CHARS:],
    }
    said = printed(done.output)
    about["reported_bpb"] = said[-1] if said else None
    return Measurement.model_validate(about | _ended(done, changed, said, about["train_seconds"], budget, limit))


def _ended(
    done: CommandResult, changed: list[str], said: list[float], seconds: Any, budget: float, limit: float
) -> dict[str, Any]:
    if changed:
        return refused(Cheat.PREPARE, f"the run changed {', '.join(changed)}; nothing but train.py may change")
    if done.timed_out:
        return {"status": "timeout", "reason": f"the run was stopped after {limit:g} seconds"}
    if done.exit_code != 0:
        lines = done.output.strip().splitlines()
        last = f": {lines[-1].strip()[-200:]}" if lines else ""
        return {"status": "crash", "reason": f"{why_it_died(done)}{last}"}
    if not said:
        return {"status": "crash", "reason": "the run printed no finite val_bpb"}
    if len(set(said)) > 1 or said[-1] <= 0:
        values = ", ".join(f"{value:g}" for value in said)
        return refused(Cheat.PRINTED, f"the run printed val_bpb {values}; an honest run prints one, above 0")
    if seconds is not None and seconds > OVER * budget + 1:
        return refused(Cheat.LONGER, f"the run says that it trained for {seconds:g} s; the budget is {budget:g} s")
    return {"status": "ok", "val_bpb": said[-1]}


def _figure(output: str, name: str) -> float | None:
    found = re.findall(rf"^{name}:\s+([\d.]+)\s*$", output, re.MULTILINE)
    return float(found[-1]) if found else None


def _digests(root: Path, paths: list[str]) -> dict[str, str]:
    """Return the digests of files, '' for those that are not there or are no files."""
    found = {}
    for path in paths:
        place = root / path
        found[path] = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
    return found


def _git(folder: Path, *words: str) -> str:
    """Run git in a folder. Raises WorkspaceError with what it said."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkspaceError(done.stderr.strip() or f"git {words[0]} failed")
    return done.stdout
