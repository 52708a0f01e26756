"""How much of a task's reference patch its issue already tells, so that such tasks can be left out of training."""

from __future__ import annotations

import re

LONGEST_TRIVIAL = 11
"""Added lines up to this many characters (`return None`, `else:`) are in many texts by chance."""


def leaked_share(issue: str, gold: str) -> float:
    """Return the share of the patch's added lines that stand in the issue word for word; 1 for an issue with a diff.

    Counted are lines of more than LONGEST_TRIVIAL characters; 0 if the patch adds none.
    """
    if re.search(r"^\s*diff --git ", issue, re.MULTILINE):
        return 1.0
    lines = gold.splitlines()
    headers = {i for i in range(1, len(lines)) if lines[i].startswith("+++ ") and lines[i - 1].startswith("--- ")}
    added = [line[1:].strip() for i, line in enumerate(lines) if line.startswith("+") and i not in headers]
    telling = [line for line in added if len(line) > LONGEST_TRIVIAL]
    return sum(line in issue for line in telling) / len(telling) if telling else 0.0
