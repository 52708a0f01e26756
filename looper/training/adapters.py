"""Adapter folders: what a training was made of, and whether it is complete."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.chat import CHATML
from looper.errors import StoreError, TrainingError
from looper.protocols import Fit, Objective, Penalty
from looper.records import Example, digest_of
from looper.training.tokens import chat_template
from looper.weight_files import file_digest

MANIFEST = "looper.json"
"""Written last: a folder that has it is complete."""


def base_digest(model: Path) -> str:
    """Return the digest of a base model's configuration and weights: what its adapters' manifests and cards name."""
    return digest_of(_contents([model / "config.json", *sorted(model.glob("*.safetensors"))]))


def data_digest(examples: Sequence[Example]) -> str:
    """Return the digest of what an adapter was trained on: its examples in their order."""
    return digest_of([digest_of(_said(example)) for example in examples])


def inputs_digest(
    model: Path,
    examples: Sequence[Example],
    start: Path | None,
    settings: dict[str, Any],
    seed: int,
    *,
    under: Sequence[Path] = (),
    penalty: Penalty | None = None,
    objective: Objective | None = None,
) -> str:
    """Return the digest of everything that decides a training's result.

    What is not given, fields of examples at their defaults, and ChatML as the template leave no trace in it.
    """
    files = [model / "config.json", model / "tokenizer.json", *sorted(model.glob("*.safetensors"))]
    if start is not None:
        files += _files(start)
    decisive: list[Any] = [_contents(files), settings, seed, [digest_of(_said(example)) for example in examples]]
    more: dict[str, Any] = {}
    if (template := chat_template(model)) != CHATML:
        more["template"] = template
    if under:
        more["under"] = [_contents(_files(path)) for path in under]
    if penalty is not None:
        more["penalty"] = _described(penalty)
    if objective is not None:
        more["objective"] = _described(objective)
    return digest_of([*decisive, more] if more else decisive)


def _files(adapter: Path) -> list[Path]:
    return [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]


def _contents(files: Sequence[Path]) -> list[str]:
    for path in files:
        if not path.is_file():
            raise TrainingError(f"{path} does not exist; give a complete folder, or a file that was written before")
    return [file_digest(path) for path in files]


def _said(example: Example) -> dict[str, Any]:
    """Return an example without the later fields that say nothing: digests of plain ones stay what they were."""
    fields = Example.model_fields
    silent = {name for name in ("label", "group", "privileged") if getattr(example, name) == fields[name].default}
    return example.model_dump(mode="json", exclude=silent)


def _described(part: Penalty | Objective) -> dict[str, Any]:
    """Return a penalty's or objective's name and values, with the contents of files in place of their names."""
    found: dict[str, Any] = {"type": type(part).__name__}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, tuple):
            found[field.name] = [_contents(_files(path)) for path in value]
        elif isinstance(value, Path):
            found[field.name] = _contents([value] if field.name == "importance" else _files(value))
        else:
            found[field.name] = value
    return found


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
        found = Fit(adapter=out, history=tuple(fit.pop("history")), **fit)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is unreadable ({error}); delete {out} to train again") from error
    stored = out / "adapter_model.safetensors"
    if not stored.is_file() or file_digest(stored) != weights:
        raise StoreError(f"{stored} is not the file that its manifest describes; delete {out} to train again")
    return found


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the lock of an adapter's folder; waits for another process that trains the same one.

    Raises StoreError for what cannot be written, TrainingError for a model that cannot be loaded meanwhile.
    """
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
            if error.errno is None:  # not the machine's word but transformers', of a model that it cannot load
                raise TrainingError(f"the model cannot be loaded: {error}; give a complete folder") from error
            place = error.filename or out
            raise StoreError(f"cannot write {place}: {error.strerror or error}; free space or rights there") from error


def publish(part: Path, out: Path, fit: Fit, facts: dict[str, Any], *, model: Path) -> None:
    """Write the manifest of an adapter of `model` into the finished folder `part` and give it its final name."""
    record = {k: v for k, v in dataclasses.asdict(fit).items() if k != "adapter"}
    weights = file_digest(part / "adapter_model.safetensors")
    manifest = {**facts, "base": base_digest(model), "weights": weights, "fit": record}
    (part / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part.rename(out)
