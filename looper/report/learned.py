"""What each arm learned from, in words: where arms were not trained alike, the reader is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Places = Mapping[str, Mapping[str, Any]]
"""An arm's steps of learning by place (stage and world), in order."""

LISTED = 4
"""Steps of learning that are listed one by one; of more, sums are told."""


def learned_notes(learning: Mapping[str, Any]) -> list[str]:
    """Return lines on the examples of each arm, on places where arms differ in them, and on arms without any.

    `learning` holds a list of facts for each arm: world, stage, examples, available, and skipped with its reason.
    """
    stages = {row["stage"] for rows in learning.values() for row in rows}
    arms = {arm: {_place(row, len(stages) > 1): row for row in rows} for arm, rows in learning.items() if rows}
    if not arms:
        return []
    told = "; ".join(f"{arm} {_amounts(places)}" for arm, places in arms.items())
    empty = [line for arm, places in arms.items() for line in _nothing(arm, places)]
    return [f"Examples learned from: {told}.", *_unmatched(arms), *empty]


def _place(row: Mapping[str, Any], staged: bool) -> str:
    parts = [f"stage {row['stage']}"] if staged else []
    return ", ".join([*parts, f"world {row['world']}"] if row["world"] else parts)


def _used(row: Mapping[str, Any]) -> int:
    return 0 if "skipped" in row else int(row["examples"])


def _number(count: int) -> str:
    return str(count) if count else "none"


def _amounts(places: Places) -> str:
    if len(places) > LISTED:
        return f"{sum(map(_used, places.values()))} in {len(places)} steps of learning"
    return ", ".join(_number(_used(row)) + (f" ({place})" if place else "") for place, row in places.items())


def _unmatched(arms: Mapping[str, Places]) -> list[str]:
    """Say where arms learned from unequal numbers, which their difference then holds too."""
    if len(arms) < 2:
        return []
    common = [place for place in next(iter(arms.values())) if all(place in places for places in arms.values())]
    unequal = [place for place in common if len({_used(places[place]) for places in arms.values()}) > 1]
    lines = []
    for place in unequal[:LISTED]:
        told = ", ".join(f"{arm} from {_number(_used(places[place]))}" for arm, places in arms.items())
        lines.append(f"Not matched{place and f' ({place})'}: {told}.")
    if len(unequal) > LISTED:
        lines.append(f"Not matched either: {len(unequal) - LISTED} more of {len(common)} steps of learning.")
    if unequal:
        lines.append("Where arms are not matched, their difference also holds the effect of training as such.")
    return lines


def _nothing(arm: str, places: Places) -> list[str]:
    """Say why an arm learned nothing, once for each reason."""
    reasons: dict[str, list[str]] = {}
    for place, row in places.items():
        if "skipped" in row:
            spare = row["available"] and not row["examples"]
            reason = "the arm that it is compared with learned nothing there" if spare else str(row["skipped"])
            reasons.setdefault(reason, []).append(place)
    lines = []
    for reason, where in reasons.items():
        few = ", ".join(where) if len(where) <= LISTED else f"{len(where)} of {len(places)} steps of learning"
        lines.append(f"The {arm} arm learned nothing{few and f' ({few})'}: {reason}.")
    return lines
