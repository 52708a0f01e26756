"""Noticing an agent that goes in circles: repeated reads, failed edits, repeated commands."""

from __future__ import annotations

from looper.actions import Action, Bash, Edit, Read
from looper.agents.tools import Outcome

READS = 3
"""So many reads of lines already seen, of one file, without a write."""
FAILED_EDITS = 3
"""So many failed edits in a row."""
COMMANDS = 3
"""The run of one command that is advised against, if all before it since the last change had the same output."""
WARNINGS = 1
"""So many pieces of advice before the session is ended."""


class LoopDetector:
    """Counts repetitions since the last change; advises once, then ends the session."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}
        self._stale_reads: dict[str, int] = {}
        self._commands: dict[str, tuple[str, int]] = {}
        self._failed_edits = 0
        self._advised = 0

    def forget_reads(self) -> None:
        """Allow reading again what the agent can no longer see."""
        self._seen.clear()
        self._stale_reads.clear()

    def before(self, action: Action) -> str:
        """Return advice if the action would only repeat what was done, '' otherwise."""
        if isinstance(action, Read):
            return self._read(action)
        if isinstance(action, Bash):
            _, count = self._commands.get(action.command, ("", 0))
            if count >= COMMANDS - 1:
                return self._advise(f"you have run this command {COMMANDS} times without changing anything")
        if isinstance(action, Edit) and self._failed_edits >= FAILED_EDITS:
            self._failed_edits = 0
            return self._advise(f"{FAILED_EDITS} edits in a row failed: read the lines again, or write the whole file")
        return ""

    def after(self, action: Action, outcome: Outcome) -> None:
        """Learn what came of an action."""
        if isinstance(action, Edit):
            self._failed_edits = 0 if outcome.ok else self._failed_edits + 1
        if isinstance(action, Bash):  # a command that shows something new each time is no repetition
            before, count = self._commands.get(action.command, ("", 0))
            same = count + 1 if before == outcome.observation else 1
            self._commands[action.command] = (outcome.observation, same)
        if outcome.changed:
            self._advised = 0
            self._seen.clear()
            self._stale_reads.clear()
            self._commands.clear()

    @property
    def given_up(self) -> bool:
        """Whether advice was given and not taken."""
        return self._advised > WARNINGS

    def _read(self, action: Read) -> str:
        seen = self._seen.setdefault(action.path, set())
        last = action.last or 0
        wanted = {0} if action.first is None else set(range(action.first, min(last, action.first + 2000) + 1))
        if 0 in seen or wanted <= seen:
            count = self._stale_reads[action.path] = self._stale_reads.get(action.path, 1) + 1
            if count >= READS:
                return self._advise(f"you have read {action.path} {count} times without changing anything")
        seen |= wanted
        return ""

    def _advise(self, reason: str) -> str:
        self._advised += 1
        return f"Loop: {reason}. Make an edit, look elsewhere, or call <done/>."
