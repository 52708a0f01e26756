"""Sessions for reading: which are shown, and their text made safe and short enough for a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from looper.records import Episode

Session = tuple[str, int, Episode]
"""Arm, stages learned before it, and the episode."""

LONGEST = 6_000
"""Characters shown of one message, observation or patch; the middle of longer ones is left out."""

MOST_STEPS = 60

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def view(session: Session) -> dict[str, Any]:
    """Return what the page shows of a session, as plain text that is not yet escaped."""
    arm, stage, episode = session
    trajectory, verdict = episode.trajectory, episode.verdict
    opening = []
    for message in trajectory.messages:
        if message.role == "assistant":
            break
        opening.append({"role": message.role, "text": shorten(message.content)})
    tests = [
        {"id": visible(name), "kind": kind, "passed": passed}
        for kind, results in (("must now pass", verdict.fail_to_pass), ("must still pass", verdict.pass_to_pass))
        for name, passed in results.items()
    ]
    return {
        "arm": arm,
        "stage": stage,
        "family": episode.family,
        "world": episode.world,
        "task": visible(episode.task),
        "attempt": trajectory.attempt,
        "result": result_of(episode),
        "exit": str(trajectory.exit),
        "error": shorten(trajectory.error),
        "seconds": trajectory.seconds,
        "tokens": trajectory.tokens,
        "opening": opening,
        "n_steps": len(trajectory.steps),
        "steps": [
            {
                "reply": shorten(step.reply),
                "action": visible(step.action),
                "observation": shorten(step.observation),
                "ok": step.ok,
                "pruned": step.pruned,
            }
            for step in trajectory.steps[:MOST_STEPS]
        ],
        "steps_left_out": max(0, len(trajectory.steps) - MOST_STEPS),
        "patch": [{"kind": kind_of(line), "text": line} for line in shorten(trajectory.patch).splitlines()],
        "applied": verdict.applied,
        "verdict_error": shorten(verdict.error),
        "tests": sorted(tests, key=lambda test: bool(test["passed"]))[:40],
        "n_tests": len(tests),
        "n_passed": sum(bool(test["passed"]) for test in tests),
    }


def result_of(episode: Episode) -> str:
    """Return resolved, machine failure or unresolved."""
    if episode.infrastructure:
        return "machine failure"
    return "resolved" if episode.resolved else "unresolved"


def kind_of(line: str) -> str:
    """Return the kind of a diff's line: file, hunk, add, del or same."""
    if line.startswith(("diff ", "index ", "+++ ", "--- ", "new file", "deleted file")):
        return "file"
    return {"@": "hunk", "+": "add", "-": "del"}.get(line[:1], "same")


def visible(text: str) -> str:
    """Return text whose control, invisible and direction-changing characters are shown as escapes.

    Sessions hold whatever a program printed; nothing in it may hide or reorder what a reader sees.
    """
    text = text.replace("\r\n", "\n")
    return _UNSEEN.sub(lambda match: json.dumps(match.group())[1:-1], text)


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return visible text with its middle left out where it is longer than `longest`, saying how much."""
    if len(text) > longest:
        head, tail = longest * 2 // 3, longest // 3
        text = f"{text[:head]}\n[... {len(text) - head - tail:,} characters left out ...]\n{text[-tail:]}"
    return visible(text)


def sample(sessions: Sequence[Session], size: Callable[[int], int], budget: int) -> list[int]:
    """Return the indices of the sessions that fit in `budget` bytes, in their order; `size` gives bytes by index.

    Every group of (arm, stage, family, result) takes turns, so that rare kinds are shown, failures as well as
    successes. A session that does not fit is passed over. Deterministic.
    """
    groups: dict[tuple[str, int, str, str], list[int]] = {}
    for i, (arm, stage, episode) in enumerate(sessions):
        groups.setdefault((arm, stage, episode.family, result_of(episode)), []).append(i)
    chosen: list[int] = []
    left = budget
    misses = 0
    for turn in range(max(map(len, groups.values()), default=0)):
        for group in groups.values():
            if turn >= len(group) or misses > 20:
                continue
            needed = size(group[turn])
            if needed > left:
                misses += 1  # the budget is as good as spent: stop rendering thousands to find a short one
                continue
            left -= needed
            chosen.append(group[turn])
    return sorted(chosen)
