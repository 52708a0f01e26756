"""Prompt computation in tiles of fixed shape, packed from many conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from looper.models.nano.cache import Held, Pool
from looper.models.nano.network import PAGE, Network
from looper.models.nano.product import Term
from looper.models.nano.shape import PAD

TILE = 24
"""Tokens of one conversation in a tile."""
LANES = 6
"""Tiles computed together; the last step of a call is filled up with tiles that lead nowhere."""

Tile = tuple[Held, int, list[int]]
"""A conversation, the position of the tile's first token, and its tokens."""


def prefill(network: Network, pool: Pool, work: Sequence[tuple[Held, list[int]]]) -> None:
    """Bring each conversation from the tokens that it holds to the given ones, which continue them.

    Its pages must be there. A conversation's tiles may share a step: each layer writes the keys of
    all tiles before any of them looks.
    """
    tiles = _tiles(work)
    while step := list(islice(tiles, LANES)):
        shares = [held.shares for held, _, _ in step]
        shares += [()] * (LANES - len(step))
        _compute(network, pool, step, network.term(shares, TILE), last=False)
    for held, ids in work:
        held.ids = list(ids)


def streams(network: Network, pool: Pool, held: Held, ids: list[int], term: Callable[[int], Term]) -> Iterator[Tensor]:
    """Run a text from its beginning through all blocks and yield the stream of its tokens, (N, D), step by step.

    Its pages must be there. The stream is the same bits whatever else the pool holds: the text's tiles are alone
    in their steps, from the first lane on. `term` makes what sees a step's products from the number of the text's
    rows in it; they are the first ones.
    """
    tiles = _tiles([(held, ids)])
    while step := list(islice(tiles, LANES)):
        count = sum(len(part) for _, _, part in step)
        yield _compute(network, pool, step, term(count), last=True)[:count]


def _tiles(work: Sequence[tuple[Held, list[int]]]) -> Iterator[Tile]:
    for held, ids in work:
        for start in range(len(held.ids), len(ids), TILE):
            yield held, start, ids[start : start + TILE]


def _compute(network: Network, pool: Pool, step: list[Tile], term: Term, *, last: bool) -> Tensor:
    pages = max(-(-(start + len(ids)) // PAGE) for _, start, ids in step)
    tokens = torch.full((LANES, TILE), PAD)
    positions = torch.zeros((LANES, TILE), dtype=torch.long)
    table = torch.zeros((pages, LANES), dtype=torch.long)
    source: list[int] = []  # rows of the step that are real tokens ...
    slots: list[int] = []  # ... and where in the pool (page * PAGE + offset) their keys go
    for lane, (held, start, ids) in enumerate(step):
        tokens[lane, : len(ids)] = torch.tensor(ids)
        positions[lane] = torch.arange(start, start + TILE).clamp_(max=network.shape.positions - 1)
        used = held.pages[:pages]
        table[: len(used), lane] = torch.tensor(used)
        source += range(lane * TILE, lane * TILE + len(ids))
        slots += (held.pages[p // PAGE] * PAGE + p % PAGE for p in range(start, start + len(ids)))
    shape = network.shape
    # Pool rows are (page, kv head, offset); the write goes to all heads of a slot.
    slot = torch.tensor(slots)
    heads = torch.arange(shape.kv_heads) * PAGE
    flat = ((slot // PAGE * shape.kv_heads * PAGE + slot % PAGE).unsqueeze(1) + heads).view(-1)
    rows, gather = torch.tensor(source), table.view(-1)

    def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        out = []
        for kept, new in ((pool.keys[layer], keys), (pool.values[layer], values)):
            kept.view(-1, shape.head).index_copy_(0, flat, new[rows].reshape(-1, shape.head))
            out.append(kept.index_select(0, gather).view(-1, PAGE, shape.head))
        return out[0], out[1]

    return network.hidden(tokens, positions, network.mask(positions, pages), store, term=term, last=last)
