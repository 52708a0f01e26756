"""A process in a box of its own that answers windows with the logits of a trained model, once it is given both.

It may be started before there is a model: importing torch takes longer than answering.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from looper.benchmarks.research.ending import ROOM, report_in
from looper.errors import WorkspaceError
from looper.protocols import Box, Workspace
from looper.records import CommandResult, Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What came back, and how the process ended."""

    done: CommandResult
    report: dict[str, Any]
    data: bytes
    """Raw floats; b'' if there are none, or more than was asked for."""


class Respondent:
    """Waits in its box for weights and windows."""

    def __init__(self, box: Box, running: Future[CommandResult], limit: float) -> None:
        self._box = box
        self._running = running
        self.limit = limit
        """Seconds after which it is stopped, counted from its start."""

    def ask(self, weights: bytes, rows: Tensor, *, size: int) -> Answers:
        """Return the answers to windows of bytes (N, T), `size` bytes if all is well; once only."""
        self._box.write_bytes(f"{ROOM}/model.pt", weights)
        self._box.write_bytes(f"{ROOM}/rows.bin", rows.byte().numpy().tobytes())
        self._go()
        done = self._running.result()
        try:
            data = self._box.read_bytes(f"{ROOM}/logits.bin", limit=size)
        except (OSError, WorkspaceError):
            data = b""
        return Answers(done=done, report=report_in(self._box), data=data)

    def dismiss(self) -> None:
        """End a process that was not asked."""
        if not self._running.done():
            self._go()
            self._running.result()

    def _go(self) -> None:
        self._box.write_bytes(f"{ROOM}/go", b"")


@contextmanager
def respondent(workspace: Workspace, source: Source, command: str, *, limit: float) -> Iterator[Respondent]:
    """Start a process that is stopped after `limit` seconds, or at the end of the block if it was not asked."""
    with workspace.open(source) as box, ThreadPoolExecutor(1) as pool:
        made = Respondent(box, pool.submit(box.run, command, seconds=limit), limit)
        try:
            yield made
        finally:
            made.dismiss()
