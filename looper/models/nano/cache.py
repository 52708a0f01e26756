"""Keys and values of conversations between turns, in pages that are lent and taken back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from looper.errors import ModelError
from looper.models.nano.network import PAGE
from looper.models.nano.shape import Shape


@dataclass
class Held:
    """What is kept of one conversation: its computed tokens and the pages with their keys and values."""

    ids: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    shares: tuple[float, ...] = ()
    """Weights of a mixture's experts that the keys were computed with; empty without a mixture."""


class Pool:
    """Pages for many conversations; the least recently used ones give way when it is full.

    Everything in it can be recomputed bit for bit, so what is evicted costs time and nothing else.
    """

    def __init__(self, shape: Shape, limit: int) -> None:
        self._shape = shape
        self._limit = limit
        self._free: list[int] = []
        self._held: OrderedDict[str, Held] = OrderedDict()
        self.keys = self._empty(0)
        self.values = self._empty(0)

    def _empty(self, pages: int) -> Tensor:
        return torch.zeros(self._shape.layers, pages, self._shape.kv_heads, PAGE, self._shape.head)

    def take(self, key: str) -> Held:
        """Return what is held under a key (made empty if new), now the most recently used."""
        held = self._held.setdefault(key, Held())
        self._held.move_to_end(key)
        return held

    def resize(self, held: Held, tokens: int, keep: Collection[str]) -> None:
        """Give `held` the pages for so many tokens; evicts nothing that `keep` names."""
        wanted = -(-tokens // PAGE)
        while len(held.pages) > wanted:
            self._free.append(held.pages.pop())
        while len(held.pages) < wanted:
            if not self._free:
                self._more(keep)
            held.pages.append(self._free.pop())

    def _more(self, keep: Collection[str]) -> None:
        size = self.keys.shape[1]
        if size < self._limit:
            more = min(max(32, size), self._limit - size)
            self.keys = torch.cat([self.keys, self._empty(more)], 1)
            self.values = torch.cat([self.values, self._empty(more)], 1)
            self._free.extend(range(size, size + more))
            return
        for key in self._held:
            if key not in keep and self._held[key].pages:
                self.drop(key)
                return
        raise ModelError(f"all {self._limit} cache pages are in use by one batch; ask for fewer conversations at once")

    def drop(self, key: str) -> None:
        """Free what is held under a key; nothing happens if there is none."""
        held = self._held.pop(key, None)
        if held is not None:
            self._free.extend(held.pages)

    def copy(self, source: Held, target: Held) -> None:
        """Copy the source's tokens and pages over the target's first pages."""
        pages = source.pages[: -(-len(source.ids) // PAGE)]
        for tensor in (self.keys, self.values):
            tensor[:, target.pages[: len(pages)]] = tensor[:, pages]
        target.ids = list(source.ids)
