"""What is added to the loss to hold an adapter near, or apart from, earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from looper.errors import TrainingError
from looper.protocols import Orthogonal, Penalty, Quadratic
from looper.training.merging import factors

PRODUCT = ".lora_BA.weight"
"""End of the name of a layer's tensor over the entries of B A; `.lora_A.weight` and `.lora_B.weight` are PEFT's."""


class Term(Protocol):
    """A penalty, ready to be added to a step."""

    lam: float

    def add(self) -> float:
        """Add the gradient of lam times the penalty to the parameters' and return the penalty without lam."""
        ...


def term(penalty: Penalty, named: Mapping[str, Tensor]) -> Term:
    """Prepare a penalty on the parameters that are trained, by their names on disk.

    Raises TrainingError if the adapters or the importance do not fit the parameters.
    """
    if isinstance(penalty, Orthogonal):
        return _Apart(penalty, named)
    return _ProductPull(penalty, named) if penalty.product else _Pull(penalty, named)


def layers(named: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (r, in) and B (out, r) of every layer, by the layer's name."""
    names = sorted({name.rsplit(".lora_", 1)[0] for name in named})
    return {name: (named[f"{name}.lora_A.weight"], named[f"{name}.lora_B.weight"]) for name in names}


def _spread(value: Tensor, lam: float) -> float:
    """Add the gradient of lam * value where it belongs and return the value."""
    if lam:  # lam 0 is to be plain training to the last bit
        (lam * value).backward()  # type: ignore[no-untyped-call]
    return float(value.detach())


class _Pull:
    """1/2 sum_i F_i (w_i - w*_i)^2 over the entries of A and B (Kirkpatrick et al. 2017)."""

    def __init__(self, penalty: Quadratic, named: Mapping[str, Tensor]) -> None:
        anchor = {
            f"{layer}.lora_{side}.weight": tensor
            for layer, pair in factors(penalty.anchor).items()
            for side, tensor in zip("AB", pair, strict=True)
        }
        importance = _Stored(penalty.importance)
        _same_names(named, anchor, f"the anchor {penalty.anchor}")
        self.lam = penalty.lam
        self.rows = [
            (p, importance.read(name, p), _fitting(anchor[name], p, name, penalty.anchor)) for name, p in named.items()
        ]

    def add(self) -> float:
        return sum(_spread(0.5 * (f * (p - w).square()).sum(), self.lam) for p, f, w in self.rows)


class _ProductPull:
    """1/2 sum_ij F_ij ((B A)_ij - (B* A*)_ij)^2, one layer after the other (2602.17559)."""

    def __init__(self, penalty: Quadratic, named: Mapping[str, Tensor]) -> None:
        anchor = factors(penalty.anchor)
        self.importance, self.lam = _Stored(penalty.importance), penalty.lam
        now = layers(named)
        _same_names(now, anchor, f"the anchor {penalty.anchor}")
        self.rows = [(name, a, b, anchor[name][0].to(a), anchor[name][1].to(b)) for name, (a, b) in now.items()]
        for name, a, b, a_then, b_then in self.rows:
            if (b.shape[0], a.shape[1]) != (b_then.shape[0], a_then.shape[1]):
                raise TrainingError(
                    f"the anchor {penalty.anchor} belongs to another model: {name} is "
                    f"{b_then.shape[0]} x {a_then.shape[1]} there and {b.shape[0]} x {a.shape[1]} here"
                )

    def add(self) -> float:
        total = 0.0
        for name, a, b, a_then, b_then in self.rows:
            change = b @ a - b_then @ a_then  # (out, in): no other layer's is kept
            total += _spread(0.5 * (self.importance.read(name + PRODUCT, change) * change.square()).sum(), self.lam)
        return total


class _Apart:
    """sum over layers and earlier adapters of the absolute entries of A_past A^T (the code of Wang et al. 2023)."""

    def __init__(self, penalty: Orthogonal, named: Mapping[str, Tensor]) -> None:
        self.lam = penalty.lam
        self.rows: list[tuple[Tensor, Tensor]] = []
        now = layers(named)
        for folder in penalty.past:
            past = factors(folder)
            _same_names(now, past, f"the earlier adapter {folder}")
            for name, (a, _) in now.items():
                then = past[name][0].to(a)  # (r_past, in)
                if then.shape[1] != a.shape[1]:
                    raise TrainingError(
                        f"the earlier adapter {folder} reads {then.shape[1]} inputs in {name}, this one {a.shape[1]}"
                    )
                self.rows.append((a, then))

    def add(self) -> float:
        return sum(_spread((then @ a.T).abs().sum(), self.lam) for a, then in self.rows)


class _Stored:
    """A file of tensors that is read one by one: of a large model, it is as large as the model."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise TrainingError(f"there is no importance file {path}; write it with the trainer's importance()")
        self.path = path
        try:
            self.file: Any = safe_open(str(path), framework="pt")
        except SafetensorError as error:
            raise TrainingError(f"the importance file {path} is unreadable ({error}); delete it") from error
        self.names = set(self.file.keys())  # type: ignore[no-untyped-call]

    def read(self, name: str, like: Tensor) -> Tensor:
        if name not in self.names:
            raise TrainingError(
                f"{self.path} has no importance of {name}, only of {len(self.names)} others such as "
                f"{min(self.names, default='none')}; measure it with the same adapter and the same `product`"
            )
        return _fitting(self.file.get_tensor(name), like, name, self.path)


def _fitting(tensor: Tensor, like: Tensor, name: str, path: Path) -> Tensor:
    if tensor.shape != like.shape:
        raise TrainingError(f"{path} has {name} with shape {tuple(tensor.shape)}, the adapter {tuple(like.shape)}")
    if not torch.isfinite(tensor).all():
        raise TrainingError(f"{path} has entries of {name} that are not finite; measure it again")
    return tensor.to(like)


def _same_names(here: Mapping[str, Any], there: Mapping[str, Any], what: str) -> None:
    if set(here) != set(there):
        odd = sorted(set(here) ^ set(there))
        raise TrainingError(f"{what} has other layers than the trained adapter: {', '.join(odd[:3])}")
