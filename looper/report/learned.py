"""What each arm learned from, in words, and how it conducted itself after: arms not trained alike are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from looper.metrics.wording import ABSENT, percent

Places = Mapping[str, Mapping[str, Any]]
"""An arm's steps of learning by place (stage and world), in order."""

LISTED = 4
"""Steps of learning that are listed one by one; of more, sums are told."""


def learned_notes(learning: Mapping[str, Any]) -> list[str]:
    """Return lines on the examples of each arm, on places where arms differ in them, and on arms without any.

    `learning` holds a list of facts for each arm: world, stage, examples, available, skipped with its reason, and
    native, false where the examples are not in the agent's own format.
    """
    stages = {row["stage"] for rows in learning.values() for row in rows}
    arms = {arm: {_place(row, len(stages) > 1): row for row in rows} for arm, rows in learning.items() if rows}
    if not arms:
        return []
    told = "; ".join(f"{arm} {_amounts(places)}" for arm, places in arms.items())
    empty = [line for arm, places in arms.items() for line in _nothing(arm, places)]
    return [f"Examples learned from: {told}.", *_mismatch(learning), *_unmatched(arms), *empty]


def _mismatch(learning: Mapping[str, Any]) -> list[str]:
    """Say where the examples are not sessions as the agent acts in them."""
    if all(row.get("native", True) for rows in learning.values() for row in rows):
        return []
    return ["Format mismatch: the examples are not in the agent's own format, and were not parsed back by it."]


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
            reasons.setdefault(str(row["skipped"]), []).append(place)
    lines = []
    for reason, where in reasons.items():
        few = ", ".join(where) if len(where) <= LISTED else f"{len(where)} of {len(places)} steps of learning"
        lines.append(f"The {arm} arm learned nothing{few and f' ({few})'}: {reason}.")
    return lines


CONDUCT = (
    "done, no patch: held-out tasks given up as done with nothing changed; malformed: steps whose reply is no action; "
    "steps: median (90th percentile) a session"
)
"""What the columns of the table of conduct mean."""


def has_conduct(metrics: Mapping[str, Any]) -> bool:
    """Whether something was learned, after which conduct may differ."""
    return any(row["stage"] for rows in metrics.get("conduct", {}).values() for row in rows)


def conduct_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return a row of cells for every arm and stage: arm, after, sessions, done without a patch, malformed, steps."""
    return [
        [
            arm,
            f"stage {row['stage']}" if row["stage"] else "nothing",
            f"{row['sessions']:,}",
            _rate(row["premature_done"]),
            _rate(row["parse_error"]),
            ABSENT if row["steps"]["median"] is None else f"{row['steps']['median']:.3g} ({row['steps']['p90']:.3g})",
        ]
        for arm, rows in metrics["conduct"].items()
        for row in rows
    ]


def conduct_table(metrics: Mapping[str, Any]) -> Table:
    """Return how the agent conducted itself on held-out tasks before and after it learned."""
    table = Table(title="Conduct on held-out tasks", title_justify="left", box=box.HORIZONTALS)
    for column in ("arm", "learned"):
        table.add_column(column)
    for column in ("sessions", "done, no patch", "malformed", "steps"):
        table.add_column(column, justify="right")
    for cells in conduct_rows(metrics):
        table.add_row(*map(Text, cells))
    table.caption = CONDUCT
    table.caption_justify = "left"
    return table


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return ABSENT
    return f"{percent(rate['estimate'])} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def adapters_of(metrics: Mapping[str, Any], arm: str = "adapted") -> list[str]:
    """Return the folders of an arm's adapters after its last stage, in every world, below the folder of outputs."""
    last = {row["world"]: row.get("adapters", []) for row in metrics.get("learning", {}).get(arm, [])}
    return list(dict.fromkeys(folder for folders in last.values() for folder in folders))
