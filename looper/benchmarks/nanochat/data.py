"""The prepared data of a benchmark: made once by prepare.py, found again by what decides it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.errors import ConfigError, MachineError
from looper.records import digest_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PREPARE = Path(__file__).parent / "prepare.py"
BOX_TOKENS = 2**25
"""Training tokens that a box is given: more than a processor takes in hours."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which data, and how it is prepared."""

    data: str
    """Folder, file, or name of a data set; '' is Python's standard library."""
    column: str
    limit_mb: float
    vocabulary: int
    split: int
    context: int
    cache: str

    @property
    def place(self) -> Path | None:
        """The user's folder or file; None for a data set by its name, and for the standard library."""
        path = Path(self.data).expanduser()
        return path.resolve() if self.data and path.exists() else None

    def key(self) -> str:
        """Return a digest of what decides the prepared files; of a folder, its files with sizes and times."""
        source: list[Any] = [self.data]
        if self.place is not None:
            files = sorted(p for p in (self.place.rglob("*") if self.place.is_dir() else [self.place]) if p.is_file())
            source = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        elif not self.data:
            source = [sys.version, sysconfig.get_path("stdlib")]
        code = hashlib.sha256(PREPARE.read_bytes()).hexdigest()
        return digest_of([source, self.column, self.limit_mb, self.vocabulary, self.split, self.context, code])[:16]


@dataclass(frozen=True)
class Prepared:
    """A folder with both splits, and one beside it without the validation split."""

    folder: Path
    context: int

    @property
    def training(self) -> Path:
        """Folder for a run: what it may see. Its validation split is nothing but zeros."""
        return self.folder.with_name(f"{self.folder.name}-training")

    @property
    def digest(self) -> str:
        """Digest of the texts, their splits and their tokens."""
        return str(json.loads((self.folder / "manifest.json").read_text())["digest"])

    def box_files(self) -> dict[str, bytes]:
        """Return the files of a run in a box."""
        found = {name: (self.training / name).read_bytes() for name in ("manifest.json", "lengths.npy")}
        with (self.training / "train.bin").open("rb") as file:
            found["train.bin"] = file.read(2 * BOX_TOKENS)
        return found | {"validation.bin": _blank(self.context)}

    def lengths(self) -> Tensor:
        """Return the bytes that each token stands for, (V,)."""
        import numpy as np
        import torch

        return torch.from_numpy(np.load(self.folder / "lengths.npy"))

    def validation(self, tokens: int) -> Tensor:
        """Return the windows that prepare.py scores, (N, T + 1)."""
        return self._rows(self._tokens("validation"), self.windows(tokens))

    def windows(self, tokens: int) -> int:
        """Return how many windows prepare.py scores."""
        return min(tokens, len(self._tokens("validation")) - 1) // self.context

    def practice(self, count: int) -> Tensor:
        """Return windows of the training split, (N, T + 1), for questions whose answers may be shown."""
        return self._rows(self._tokens("train"), count)

    def _tokens(self, name: str) -> np.ndarray[Any, np.dtype[np.uint16]]:
        import numpy as np

        return np.memmap(self.folder / f"{name}.bin", np.uint16, "r")

    def _rows(self, data: np.ndarray[Any, np.dtype[np.uint16]], count: int) -> Tensor:
        import numpy as np
        import torch

        starts = np.linspace(0, len(data) - self.context - 1, count).astype(np.int64)
        return torch.from_numpy(data[starts[:, None] + np.arange(self.context + 1)].astype(np.int64))


def _blank(context: int) -> bytes:
    return bytes(2 * (context + 1))


@lru_cache(maxsize=8)
def prepared(wanted: Wanted) -> Prepared:
    """Return the prepared data, which is made if it is not there.

    Raises ConfigError for data that is not there or too little, MachineError for a cache that cannot be written.
    """
    if wanted.data and wanted.place is None and (wanted.data.count("/") > 1 or wanted.data[0] in "./~"):
        raise ConfigError(
            f"benchmark.data={wanted.data} is no folder and no file; give a folder of text or parquet, a data set's "
            "name (owner/name), or leave it empty for Python's standard library"
        )
    root = Path(wanted.cache).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _made(wanted, Prepared(root.resolve() / wanted.key(), wanted.context))
    except OSError as error:
        raise MachineError(
            f"benchmark.cache={wanted.cache} cannot be used ({error}); give a folder with room"
        ) from error


def _made(wanted: Wanted, found: Prepared) -> Prepared:
    if all((folder / "manifest.json").exists() for folder in (found.folder, found.training)):
        return found
    settings = {"CACHE": found.folder, "VOCABULARY": wanted.vocabulary, "CONTEXT": wanted.context}
    env = os.environ | {f"NANOCHAT_{k}": str(v) for k, v in (settings | {"SPLIT": wanted.split}).items()}
    data = str(wanted.place or wanted.data)
    words = ["--data", data, "--column", wanted.column, "--limit", str(wanted.limit_mb)]
    print(f"preparing {data or 'the standard library'} in {found.folder}, once", file=sys.stderr)
    done = subprocess.run([sys.executable, str(PREPARE), *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no reason was given").splitlines()
        shutil.rmtree(found.folder, ignore_errors=True)
        raise ConfigError(
            f"benchmark.data={wanted.data or '(the standard library)'} could not be prepared: {lines[-1]}"
        )
    found.training.mkdir(exist_ok=True)
    (found.training / "validation.bin").write_bytes(_blank(wanted.context))
    for name in ("train.bin", "lengths.npy", "manifest.json"):
        target = found.training / name
        target.unlink(missing_ok=True)
        try:
            os.link(found.folder / name, target)
        except OSError:
            shutil.copy(found.folder / name, target)
    return found


@lru_cache(maxsize=8)
def held_out(split: int) -> tuple[str, ...]:
    """Return the standard library's files that are in a split's validation half, as prepare.py deals them."""
    from looper.benchmarks.nanochat import prepare

    root = Path(sysconfig.get_path("stdlib"))
    out = []
    for path in prepare.library_files():
        content = path.read_text(encoding="utf-8", errors="replace").encode(errors="replace")
        if prepare.is_held_out(hashlib.sha256(content).hexdigest(), str(split)):
            out.append(path.relative_to(root).as_posix())
    return tuple(out)
