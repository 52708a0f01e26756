"""Several LoRA adapters become one of lower rank: the best approximation of their sum, without ever forming it.

For one layer the sum of the changes is [s_1 B_1, s_2 B_2, ...] [A_1; A_2; ...] = B A. With B = Q_B R_B and
A^T = Q_A R_A the singular values of B A are those of the small core R_B R_A^T, whose size is the sum of the ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looper.errors import TrainingError
from looper.lora_files import CONFIG, WEIGHTS, beyond, scale_of

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Decomposed:
    """The singular value decomposition of one layer's change."""

    left: Matrix  # (out, R)
    values: Matrix  # (R,), falling
    right: Matrix  # (R, in)

    def factors(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return B (out, rank) and A (rank, in) of the best approximation of that rank, their scales balanced."""
        root = np.sqrt(self.values[:rank])
        missing = max(0, rank - len(root))  # a small layer has fewer singular values: zeros add nothing
        b = np.pad(self.left[:, :rank] * root, ((0, 0), (0, missing)))
        a = np.pad(root[:, None] * self.right[:rank], ((0, missing), (0, 0)))
        return b, a


@dataclass(frozen=True, kw_only=True)
class Consolidation:
    """What a merge did."""

    rank: int
    ranks: tuple[int, ...]
    """Ranks of the adapters that were merged."""
    error: float
    """Frobenius norm of what was lost, over all layers, relative to that of the sum."""


def decompose(lefts: Sequence[Matrix], rights: Sequence[Matrix]) -> Decomposed:
    """Return the decomposition of sum_i left_i @ right_i, for left_i (out, r_i) and right_i (r_i, in).

    On one thread, and with the largest entry of every left vector positive: the same bits whatever the machine is
    busy with, since they decide the digest of the merged adapter.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        q_b, r_b = torch.linalg.qr(torch.from_numpy(np.hstack(lefts)))  # (out, m), (m, sum r)
        q_a, r_a = torch.linalg.qr(torch.from_numpy(np.vstack(rights)).T)  # (in, n), (n, sum r)
        u, values, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        left, right = q_b @ u, v @ q_a.T  # (out, R), (R, in)
    finally:
        torch.set_num_threads(before)
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()  # (1, R)
    return Decomposed(left=(left * signs).numpy(), values=values.numpy(), right=(right * signs.T).numpy())


def rank_for(spectra: Sequence[Matrix], limit: int, energy: float) -> int:
    """Return the lowest rank at which all layers together keep a share `energy` of their squared singular values.

    At most `limit`, at least 1.
    """
    total = sum(float(np.sum(s**2)) for s in spectra)
    for rank in range(1, limit):
        if sum(float(np.sum(s[:rank] ** 2)) for s in spectra) >= energy * total:
            return rank
    return limit


def consolidate(folders: Sequence[Path], out: Path, *, limit: int, energy: float) -> Consolidation:
    """Merge adapters (folders in PEFT's format) into one of at most rank `limit` in the folder `out`.

    The scales are folded into the matrices: the new adapter's alpha is its rank. Raises TrainingError for adapters
    that are more than plain LoRA, or of different layers.
    """
    configs = [_config(folder) for folder in folders]
    for key in ("target_modules", "layers_to_transform"):
        if len({json.dumps(_sorted(config.get(key))) for config in configs}) > 1:
            raise TrainingError(f"adapters {', '.join(map(str, folders))} differ in {key}: they cannot be merged")
    layers = [_matrices(folder, config) for folder, config in zip(folders, configs, strict=True)]
    names = sorted(set().union(*layers))
    found = {}
    for name in names:
        parts = [layer[name] for layer in layers if name in layer]
        found[name] = decompose([b for b, _ in parts], [a for _, a in parts])
    rank = rank_for([layer.values for layer in found.values()], limit, energy)
    _write(out, {name: layer.factors(rank) for name, layer in found.items()}, configs[-1], rank)
    total = sum(float(np.sum(layer.values**2)) for layer in found.values())
    lost = sum(float(np.sum(layer.values[rank:] ** 2)) for layer in found.values())
    ranks = tuple(int(config["r"]) for config in configs)
    return Consolidation(rank=rank, ranks=ranks, error=math.sqrt(lost / total) if total else 0.0)


def rank_of(folder: Path) -> int:
    """Return an adapter's rank."""
    return int(_config(folder)["r"])


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if more := beyond(config):
        raise TrainingError(f"adapter {folder} has {more}; only plain LoRA can be merged")
    return config


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _matrices(folder: Path, config: Mapping[str, Any]) -> dict[str, tuple[Matrix, Matrix]]:
    """Return each layer's scaled B (out, r) and A (r, in), by the layer's name."""
    from safetensors.torch import load_file  # numpy has no bfloat16, which other tools write

    scale = scale_of(config)
    tensors = {n: t.double().numpy() for n, t in load_file(folder / WEIGHTS).items()}
    found: dict[str, tuple[Matrix, Matrix]] = {}
    for name, a in tensors.items():
        layer, _, kind = name.rpartition(".lora_")
        if kind not in ("A.weight", "B.weight") or not all(f"{layer}.lora_{k}.weight" in tensors for k in "AB"):
            raise TrainingError(f"adapter {folder} holds {name}, which is no pair of LoRA matrices A and B")
        if kind == "A.weight":
            found[layer] = (scale * tensors[f"{layer}.lora_B.weight"], a)
    return found


def _write(out: Path, layers: Mapping[str, tuple[Matrix, Matrix]], config: Mapping[str, Any], rank: int) -> None:
    """Write an adapter of scale 1; each file is whole or not there."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[np.float32]] = {}
    for layer, (b, a) in layers.items():
        tensors[f"{layer}.lora_A.weight"] = np.ascontiguousarray(a, dtype=np.float32)
        tensors[f"{layer}.lora_B.weight"] = np.ascontiguousarray(b, dtype=np.float32)
    out.mkdir(parents=True, exist_ok=True)
    weights, settings = out / WEIGHTS, out / CONFIG
    save_file(tensors, weights.with_suffix(".part"), metadata={"format": "pt"})
    weights.with_suffix(".part").replace(weights)
    text = json.dumps({**config, "r": rank, "lora_alpha": rank, "use_rslora": False}, indent=2, sort_keys=True)
    settings.with_suffix(".part").write_text(text + "\n", encoding="utf-8")
    settings.with_suffix(".part").replace(settings)
