"""The host's half of a judged run: answers are read part by part, scored, and compared; none of them is kept whole.

Of the answers of the first process, those at some positions of the windows that the second one is asked about are
remembered: where its beginning ends, and 1, 3, 7 ... positions before, as a model may look ahead by more than a token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from looper.benchmarks.research.ending import ROOM
from looper.benchmarks.research.measurement import Cheat
from looper.benchmarks.research.questions import Questions, apart, draw_questions, foreknowledge
from looper.errors import WorkspaceError
from looper.protocols import Box
from looper.records import CommandResult

if TYPE_CHECKING:
    from torch import Tensor

PROBES = 512
"""Windows at most that the second process is asked about; one in eight of them whole."""


def questions(rows: Tensor) -> Questions:
    """Draw the questions about validation windows (N, T + 1)."""
    total = min(PROBES, len(rows))
    whole = max(1, total // 8)
    return draw_questions(rows[:, :-1], spliced=total - whole, whole=whole)


def looked_at(asked: Questions) -> tuple[Tensor, Tensor]:
    """Return which positions are compared: the probe of each, and its place in the window, both (P,)."""
    import torch

    length = asked.scored.size(1)
    back = 2 ** torch.arange(int(math.log2(length)) + 1) - 1
    places = asked.last[:, None] - back
    probe = torch.arange(len(places))[:, None].expand_as(places)
    return probe[places >= 0], places[places >= 0]


@dataclass(kw_only=True)
class Reading:
    """What is taken from the answers of one process while they come."""

    row: Tensor
    """Row of each position that is remembered, (P,)."""
    place: Tensor
    """Its place in the row, (P,)."""
    targets: Tensor | None = None
    """Tokens after those of the rows, (N, T), where the answers are scored."""
    lengths: Tensor | None = None
    """Bytes of each token, (V,)."""
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    nats: float = 0.0
    scored_bytes: int = 0
    not_finite: int = 0

    def take(self, first: int, scores: Tensor) -> None:
        """Take the answers (B, T, V) to the rows from `first` on; what is kept of them is on the processor."""
        import torch

        not_finite = int((~scores.isfinite()).any(-1).sum())
        here = ((self.row >= first) & (self.row < first + len(scores))).nonzero().flatten()
        kept = scores[self.row[here] - first, self.place[here]].cpu()
        nats, scored_bytes = 0.0, 0
        if self.targets is not None and self.lengths is not None:
            y = self.targets[first : first + len(scores)].flatten().to(scores.device)
            loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y, reduction="none")
            reach = self.lengths.to(scores.device)[y]
            nats, scored_bytes = loss.masked_fill(reach == 0, 0).double().sum().item(), int(reach.sum())
        self.kept.append((here, kept))  # nothing is taken before all is computed: a card may run out of memory
        self.not_finite, self.nats = self.not_finite + not_finite, self.nats + nats
        self.scored_bytes += scored_bytes

    def remembered(self) -> Tensor:
        """Return the answers at the remembered positions, (P, V)."""
        import torch

        order = torch.cat([here for here, _ in self.kept])
        return torch.cat([scores for _, scores in self.kept])[order.argsort()]

    @property
    def bits_per_byte(self) -> float:
        """Score of all answers."""
        return self.nats / (math.log(2) * self.scored_bytes)


def nothing() -> Reading:
    """Return a reading that takes nothing from the answers."""
    import torch

    none = torch.zeros(0, dtype=torch.long)
    return Reading(row=none, place=none)


def readings(asked: Questions, targets: Tensor, lengths: Tensor) -> tuple[Reading, Reading]:
    """Return what is taken from each process; positions of both are in one order."""
    probe, place = looked_at(asked)
    return Reading(row=asked.window[probe], place=place, targets=targets, lengths=lengths), Reading(
        row=probe, place=place
    )


def fault(asked: Questions, scored: Reading, probes: Reading, tolerance: float) -> tuple[Cheat, str] | None:
    """Return what is wrong with the answers, None if they can be scored."""
    import torch

    for one in (scored, probes):
        if one.not_finite:
            return Cheat.NOT_FINITE, f"logits are not finite at {one.not_finite} positions"
    first, second = scored.remembered(), probes.remembered()
    off = apart(first, second, tolerance)
    guilty = torch.unique(probes.row[off])
    company = int(asked.whole[guilty].sum())
    if company:
        return Cheat.FUTURE, f"the logits of {company} of {int(asked.whole.sum())} rows depend on the other rows"
    if len(guilty):
        count = int((~asked.whole).sum())
        return Cheat.FUTURE, f"in {len(guilty)} of {count} windows the logits changed with the tokens after them"
    return foreknowledge(*ends(asked, probes, first, second))


def ends(asked: Questions, probes: Reading, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both answers (P, V) where a beginning ends, and the tokens after it (P,), which only the first saw."""
    where = ((probes.place == asked.last[probes.row]) & ~asked.whole[probes.row]).nonzero().flatten()
    row = probes.row[where]
    return first[where], second[where], asked.scored[asked.window[row], asked.last[row] + 1]


def ask(
    box: Box,
    command: str,
    rows: Tensor,
    take: Callable[[int, Tensor], None],
    *,
    shape: Mapping[str, int],
    limit: float,
    device: str = "cpu",
) -> tuple[CommandResult, bool]:
    """Ask the model in a box about rows (N, T); return how that ended, and whether all answers came.

    `shape` has the windows of a part and the size of the vocabulary; `take` is given answers on `device`, one part in
    the place of another.
    """
    import numpy as np
    import torch

    size, vocabulary = shape["windows"], shape["vocabulary"]
    room = torch.empty(min(size, len(rows)), rows.size(1), vocabulary, pin_memory=device == "cuda")
    box.write_bytes(f"{ROOM}/rows.bin", rows.int().numpy().tobytes())
    parts = range(0, len(rows), size)
    whole = True
    with ThreadPoolExecutor(1) as pool:
        box.write_bytes(f"{ROOM}/seen", b"00000000")
        run = pool.submit(box.run, command, seconds=limit)
        for number, first in enumerate(parts):
            count = min(size, len(rows) - first)
            wanted = 4 * count * rows.size(1) * vocabulary
            data = _part(box, number, wanted, run.done)
            if data is None:
                whole = False
                break
            if len(data) == wanted:
                np.copyto(room[:count].flatten().numpy(), np.frombuffer(data, np.float32))
                try:
                    take(first, room[:count].to(device))
                except torch.OutOfMemoryError:  # the model that answers fills the card
                    take(first, room[:count])
            whole = whole and len(data) == wanted
            box.write_bytes(f"{ROOM}/seen", b"%08d" % (number + 1))
        return run.result(), whole


def _part(box: Box, number: int, wanted: int, ended: Callable[[], bool]) -> bytes | None:
    """Return a part of the answers when it is there, b'' for one of another size; None if the run ends without it."""
    last = False
    while True:
        try:
            return box.read_bytes(f"{ROOM}/{number}.bin", limit=wanted)
        except FileNotFoundError:
            if last:
                return None
        except (OSError, WorkspaceError):
            return b""
        last = ended()
        time.sleep(0.002)
