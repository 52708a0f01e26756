"""Products with fixed matrices: by oneDNN where torch has it, which is twice as fast on CPUs with AVX-512."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Term = Callable[[int, str, Tensor, Tensor], Tensor]
"""Sees each product (layer, name, input (R * T, in), output (R * T, out)) and returns what counts as its output."""


def unchanged(layer: int, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Return a product's own output: the term of a model that is no mixture."""
    return y


def _has_onednn() -> bool:
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Product:
    """x @ matrix.T + bias, or + another tensor; the matrix (out, in) is packed once."""

    def __init__(self, matrix: Tensor, bias: Tensor | None = None, *, onednn: bool | None = None) -> None:
        self._onednn = _has_onednn() if onednn is None else onednn
        self._bias = bias
        if self._onednn:
            self._matrix = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous())
        else:
            self._matrix = matrix.contiguous().t()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product for rows x (R, in), contiguous."""
        if self._onednn:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._matrix, self._bias, "none", [], "")
            return out
        return x @ self._matrix if self._bias is None else torch.addmm(self._bias, x, self._matrix)

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """Return the product, without bias, plus `other` (R, out)."""
        if self._onednn:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._matrix, None, "add")
            return out
        return torch.addmm(other, x, self._matrix)
