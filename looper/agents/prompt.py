"""What the agent is told, and the framework fixes as switches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum


class Fix(Enum):
    """The framework fixes by name, for leave-one-out grids."""

    few_shot = "few_shot"
    line_ranges = "line_ranges"
    prune = "prune"
    loop_detection = "loop_detection"
    skip_verification = "skip_verification"
    strip_fences = "strip_fences"
    fuzzy_edit = "fuzzy_edit"
    edit_tool = "edit_tool"


_EXAMPLE = """\
<bash>git grep -n "def total"</bash>
<read>shop/cart.py:12-21</read>
<edit path="shop/cart.py">
    return price
=======
    return price * count
</edit>
<done/>"""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The system prompt and the behaviour of the tools; every fix is one boolean."""

    few_shot: bool = True
    """A worked example in the system prompt (cures aimless exploration)."""
    line_ranges: bool = True
    """`<read>path:10-40</read>` shows those lines only (cures contexts full of whole files)."""
    prune: bool = True
    """Old tool results are left out once the context grows past its budget (cures drift past the window)."""
    loop_detection: bool = True
    """Repeated reads, failed edits and commands are stopped, first with advice, then for good."""
    skip_verification: bool = True
    """"Do not run tests, call done" (cures long attempts to make a test suite run)."""
    strip_fences: bool = True
    """Code fences around written text are removed (cures fences in source files)."""
    fuzzy_edit: bool = True
    """An edit whose old text is nearly right still applies (ratio >= 0.7; cures retried edits)."""
    edit_tool: bool = True
    """Offer `<edit>`; without it files are rewritten whole (cures truncated rewrites)."""
    without: list[Fix] = field(default_factory=list)
    """Fixes to switch off, by name: `prompt.without=[few_shot]` equals `prompt.few_shot=false`; for grids."""

    def __post_init__(self) -> None:
        """Fold `without` into the booleans, so that both ways of saying it give one and the same prompt."""
        for fix in self.without:
            object.__setattr__(self, Fix(fix).value, False)
        object.__setattr__(self, "without", [])

    def switches(self) -> dict[str, bool]:
        """Return the state of every fix: what identifies this prompt."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "without"}

    def system(self, *, terse: bool, playbook: str = "") -> str:
        """Return the system message.

        `terse` is for models that were trained on the tool language: a line instead of a manual.
        """
        text = self._terse() if terse else self._manual()
        return f"{text}\n{playbook.strip()}" if playbook.strip() else text

    def _terse(self) -> str:
        tools = "bash, read, edit, write, done" if self.edit_tool else "bash, read, write, done"
        parts = [
            f"Tools: {tools}.",
            "Read line ranges." if self.line_ranges else "Read whole files.",
            "Skip tests." if self.skip_verification else "Run tests.",
        ]
        if self.few_shot:
            parts.append(f"Example: grep, read, {'edit' if self.edit_tool else 'write'}, done.")
        return " ".join(parts)

    def _manual(self) -> str:
        lines = [
            f"{self._aim()} You work in its root folder with these tools:",
            "<bash>command</bash> runs a shell command; every call starts in the root folder.",
            "<read>path</read> shows a file.",
        ]
        if self.line_ranges:
            lines.append("<read>path:10-40</read> shows lines 10 to 40. Read the lines you need, not whole files.")
        if self.edit_tool:
            lines.append('<edit path="file">\nold lines, exactly as read\n=======\nnew lines\n</edit> replaces text.')
        lines.append('<write path="file">\ntext\n</write> writes a whole file.')
        lines.append(f"<done/> ends the session; {self._judge()}")
        lines.append("Answer with exactly one tool call a turn. You may think first in <think>...</think>.")
        lines.append(self._end())
        if self.few_shot:
            example = _EXAMPLE if self.edit_tool else _EXAMPLE.replace(_edit_part(), _WRITE_PART)
            lines.append(f"Example of a session, one call a turn:\n{example}")
        return "\n".join(lines)

    def _aim(self) -> str:
        return "You fix one bug in a git repository."

    def _judge(self) -> str:
        return "what you changed is then judged by hidden tests."

    def _end(self) -> str:
        if self.skip_verification:
            return "Do not run tests and do not install anything: when the fix is made, call <done/>."
        return "Check your fix by running the tests before you call <done/>."


@dataclass(frozen=True, kw_only=True)
class ResearchPrompt(Prompt):
    """The system prompt of a research campaign: the same tools and switches, another aim."""

    def _aim(self) -> str:
        return "You improve a program that trains a model, by one change at a time."

    def _judge(self) -> str:
        return "the program is then trained and scored elsewhere."

    def _end(self) -> str:
        if self.skip_verification:
            return (
                "Do not run the program, there is nothing to train with here: when the change is made, answer "
                "<think>what you changed and why, in one line</think><done/>."
            )
        return (
            "Check that the program still compiles, then answer "
            "<think>what you changed and why, in one line</think><done/>."
        )


_WRITE_PART = """\
<write path="shop/cart.py">
def total(price, count):
    return price * count
</write>"""


def _edit_part() -> str:
    start, end = _EXAMPLE.index("<edit"), _EXAMPLE.index("</edit>") + len("</edit>")
    return _EXAMPLE[start:end]
