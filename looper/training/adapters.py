"""Adapter folders: what a training was made of, and whether it is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.errors import StoreError
from looper.protocols import Fit
from looper.records import Example, digest_of

MANIFEST = "looper.json"
"""Written last: a folder that has it is complete."""

WHOLE = 256 * 2**20
"""Bytes up to which a weight file is hashed whole; of larger ones, only the ends and the size."""


def file_digest(path: Path) -> str:
    """Return a digest of a file's content (of a very large one: its size, first and last megabytes)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        head = stream.read(2**22)
        stream.seek(-(2**22), 2)
        return hashlib.sha256(head + stream.read() + str(size).encode()).hexdigest()


def inputs_digest(
    model: Path, examples: Sequence[Example], start: Path | None, settings: dict[str, Any], seed: int
) -> str:
    """Return the digest of everything that decides a training's result."""
    files = [model / "config.json", model / "tokenizer.json", *sorted(model.glob("*.safetensors"))]
    if start is not None:
        files += [start / "adapter_config.json", start / "adapter_model.safetensors"]
    contents = [file_digest(path) for path in files]
    return digest_of([contents, settings, seed, [digest_of(example) for example in examples]])


def finished(out: Path, inputs: str) -> Fit | None:
    """Return what a complete training of these inputs did; None if `out` holds none.

    Raises StoreError if the manifest is unreadable, or the weights are not those it was written for.
    """
    path = out / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["inputs"] != inputs:
            return None
        weights, fit = manifest["weights"], manifest["fit"]
        history = tuple(fit.pop("history"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is unreadable ({error}); delete {out} to train again") from error
    stored = out / "adapter_model.safetensors"
    if not stored.is_file() or file_digest(stored) != weights:
        raise StoreError(f"{stored} is not the file that its manifest describes; delete {out} to train again")
    return Fit(adapter=out, history=history, **fit)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the lock of an adapter's folder; waits for another process that trains the same one."""
    import fcntl

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = (out.parent / f".{out.name}.lock").open("w")
    except OSError as error:
        raise StoreError(f"cannot write {out.parent}: {error.strerror}; free space or rights there") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot write {out}: {error.strerror or error}; free space or rights there") from error


def publish(part: Path, out: Path, fit: Fit, facts: dict[str, Any]) -> None:
    """Write the manifest into the finished folder `part` and give it its final name."""
    record = {k: v for k, v in dataclasses.asdict(fit).items() if k != "adapter"}
    manifest = {**facts, "weights": file_digest(part / "adapter_model.safetensors"), "fit": record}
    (part / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part.rename(out)
