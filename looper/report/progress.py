"""Live progress of a run: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from looper.records import Episode

QUIET_SECONDS = 30.0
"""Plain lines come no more often than this within a phase."""


class Progress:
    """Shows phases, sessions done, how many are resolved so far, and the time left.

    ```python
    with Progress() as progress:
        progress.phase("probe base", total=150)
        progress.done(episode)
    ```
    """

    def __init__(self, console: Console | None = None, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        """Write to `console`, by default stderr; plain lines come no more often than every `quiet_seconds`."""
        self._quiet_seconds = quiet_seconds
        self._console = console or Console(stderr=True)
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._name = ""
        self._total = self._done = self._resolved = self._failed = 0
        self._started = self._spoken = 0.0

    def __enter__(self) -> Progress:
        """Start showing."""
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[result]}", markup=False),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the phase under way and stop."""
        self._end()
        if self._bars:
            self._bars.stop()

    def phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` sessions."""
        self._end()
        self._name, self._total = name, total
        self._done = self._resolved = self._failed = 0
        self._started = self._spoken = time.monotonic()
        if self._bars:
            self._bar = self._bars.add_task(name, total=total, result="")
        else:
            self._say(f"{name}: {total} sessions")

    def done(self, episode: Episode) -> None:
        """Count a finished session."""
        self._done += 1
        self._resolved += episode.resolved
        self._failed += episode.infrastructure
        if self._bars and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, result=self._result())
        elif time.monotonic() - self._spoken >= self._quiet_seconds:
            self._spoken = time.monotonic()
            self._say(f"{self._name}: {self._done} of {self._total}, {self._result()}")

    def _end(self) -> None:
        if self._name and not self._bars:
            seconds = time.monotonic() - self._started
            self._say(f"{self._name}: {self._done} of {self._total} done in {seconds:.0f} s, {self._result()}")
        self._name, self._bar = "", None

    def _result(self) -> str:
        failed = f", {self._failed} machine failures" if self._failed else ""
        return f"{self._resolved} resolved{failed}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
