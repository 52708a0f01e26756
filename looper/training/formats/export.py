"""Export: an adapter in PEFT's, mlx-lm's or llama.cpp's format becomes a folder in another, with a model card."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from looper import lora_files
from looper.errors import StoreError
from looper.training.formats import gguf_file, merged_folder, mlx_folder, peft_folder
from looper.training.formats.base_model import base_of, found, trained_on
from looper.training.formats.card import card, history_of
from looper.training.formats.lora import Lora
from looper.training.formats.targets import Precision, Target

LOG = logging.getLogger(__name__)

NOTICEABLE = 0.05
"""Share of an adapter's change from which its loss by rounding is warned of."""


def read(folder: Path) -> Lora:
    """Read an adapter in PEFT's, mlx-lm's or llama.cpp's format. Raises StoreError if it is in none of them."""
    if peft_folder.is_one(folder):
        return peft_folder.read(folder)
    if mlx_folder.is_one(folder):
        return mlx_folder.read(folder)
    if gguf_file.is_one(folder):
        return gguf_file.read(folder / gguf_file.FILE)
    raise StoreError(
        f"{folder} holds no adapter: {lora_files.CONFIG} with {lora_files.WEIGHTS} (PEFT) or "
        f"{mlx_folder.WEIGHTS} (mlx-lm), or {gguf_file.FILE} (llama.cpp), is needed"
    )


def export(
    adapter: Path,
    *,
    to: Target,
    out: Path,
    base: Path | None = None,
    precision: Precision = Precision.base,
    known: Mapping[str, Path] | None = None,
) -> Path:
    """Write the adapter in the folder `adapter` as `to` into the new folder `out` and return it.

    `base` is the folder of its base model; None looks where the adapter says that it is, and among the models that are
    `known` by a name. The folder has its final name only when it is complete. Raises StoreError if `out` is there
    already, or for what cannot be found, read or written, and TrainingError, by name, for what the target cannot hold.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is there already; give a new folder as --out")
    lora = read(adapter)
    history = history_of(adapter)
    if base is None:
        base = found(adapter, lora.base, known or {})
    there = base_of(base, lora, known or {})
    if trained_on(adapter) not in ("", there.digest):
        LOG.warning("%s was trained on other weights than those in %s: results may differ", adapter, base)
    lora = dataclasses.replace(lora, base=there.name)  # a path on this machine would mean nothing to others
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        notes = _write(lora, part, to=to, base=base, precision=precision)
        text = card(
            lora,
            base=there,
            digest=_digest(adapter),
            history=history,
            form=to.value,
            notes=notes,
        )
        (part / "README.md").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()  # empty, or it was refused above
        part.rename(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}; free space or rights there") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _digest(adapter: Path) -> str:
    if peft_folder.is_one(adapter):
        return lora_files.digest(adapter)
    return mlx_folder.digest(adapter) if mlx_folder.is_one(adapter) else gguf_file.digest(adapter)


def _write(lora: Lora, folder: Path, *, to: Target, base: Path, precision: Precision) -> list[str]:
    """Write one format and return what its card has to say."""
    if to is Target.merged:
        merge = merged_folder.write(lora, folder, base=base, precision=precision)
        if merge.lost > NOTICEABLE:
            LOG.warning("rounding took %.0f %% of the adapter's change; give --precision float32", 100 * merge.lost)
        return [
            f"The adapter is part of the weights of {merge.layers} layers, which are stored in {merge.dtype}"
            f"{', as the base has them' if precision is Precision.base else ''}. Rounding to the stored precision took "
            f"{merge.lost:.2%} of its change (norms)."
        ]
    if to is Target.mlx:
        mlx_folder.write(lora, folder, base=base)
        return ["mlx-lm's `scale` multiplies B A as it stands: it is alpha / rank, not alpha."]
    if to is Target.gguf:
        gguf_file.write(lora, folder, base=base)
        return [
            f"Use: `llama-cli -m BASE.gguf --lora {gguf_file.FILE}`, or `ADAPTER ./{gguf_file.FILE}` in a Modelfile."
        ]
    peft_folder.write(lora, folder)
    folded = lora.alpha != int(lora.alpha)
    return ["The scale was folded into B, since PEFT's alpha is a whole number."] if folded else []
