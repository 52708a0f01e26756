"""What an agent is told of the contract, with the budget and the limits that are in force."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
TIMED = (
    "The clock leaves out what the first steps take longer than the others, as they compile. A step takes at most a "
    "twentieth of the budget."
)
TOLD_TOKENS = "It is 1 when no further step fits."
CLOSED = "A run is one process in its own folder: starting another, or opening files elsewhere, is refused too.\n"


def contract(*, budget: float, unit: str, limit: float, boxed: bool) -> str:
    """Return the contract of the bundled train.py; `boxed` is whether runs take place in boxes."""
    counted = TIMED if unit == "seconds" else TOLD_TOKENS
    values = {"budget": f"{budget:,g} {unit} of training" if budget < 1e6 else f"{budget:,.0f} {unit} of training"}
    values |= {"limit": f"{limit:g} seconds", "counted": counted, "closed": CLOSED if boxed else ""}
    return _read("contract.md").format(**values)


def checkout(*, seconds: float | None, limit: float) -> str:
    """Return the contract of a user's checkout; `seconds` is the budget that its prepare.py has, None for unknown."""
    budget = "prepare.py says its budget." if seconds is None else f"The budget is {seconds:g} seconds of training."
    return _read("checkout.md").format(budget=budget, limit=f"{limit:g} seconds")


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
