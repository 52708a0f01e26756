"""Which examples a step sees: what is held out, what stays together, what goes through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from looper.errors import TrainingError
from looper.protocols import Objective, PolicyGradient, Preference, ProspectTheory
from looper.records import digest_of
from looper.training.schedule import Schedule
from looper.training.tokens import Tokenised

Unit = tuple[Tokenised, ...]
"""Examples that are of no use without one another and share every batch."""


def length(example: Tokenised) -> int:
    """Return how many tokens an example has."""
    return len(example.ids)


def parts(
    examples: Sequence[Tokenised], limit: int, size: Callable[[Tokenised], int] = length
) -> list[list[Tokenised]]:
    """Cut examples, longest first, into runs of at most `limit` padded tokens (one example at least)."""
    found: list[list[Tokenised]] = []
    for example in examples:
        if found and size(found[-1][0]) * (len(found[-1]) + 1) <= limit:
            found[-1].append(example)
        else:
            found.append([example])
    return found


def batches(units: Sequence[Unit], size: int, seed: int, epoch: int) -> list[list[Unit]]:
    """Return an epoch's batches of about `size` examples: shuffled, then sorted by length within pools of four."""
    random = Random(f"{seed}/{epoch}")
    order = list(units)
    random.shuffle(order)
    each = max(1, size * len(units) // max(1, sum(len(unit) for unit in units)))  # units of a batch
    found: list[list[Unit]] = []
    for start in range(0, len(order), 4 * each):
        pool = sorted(order[start : start + 4 * each], key=lambda unit: -max(length(e) for e in unit))
        found += [pool[i : i + each] for i in range(0, len(pool), each)]
    random.shuffle(found)
    return found


def split(trainer: Schedule, examples: Sequence[Tokenised], seed: int) -> tuple[list[Tokenised], list[Tokenised]]:
    """Hold out all examples of some tasks."""
    tasks = sorted({e.task for e in examples}, key=lambda task: digest_of([seed, task]))
    count = round(trainer.held_out * len(tasks))
    if trainer.held_out and len(tasks) >= max(2, trainer.held_out_min_tasks):
        count = max(1, count)
    else:
        count = 0
    chosen = set(tasks[:count])
    return [e for e in examples if e.task not in chosen], [e for e in examples if e.task in chosen]


def units(
    examples: Sequence[Tokenised], objective: Objective | None, seed: int
) -> tuple[list[Unit], Mapping[str, int]]:
    """Put together what an objective compares; return the units and how many examples had no counterpart.

    Pairs for preferences, groups for the policy gradient, both labels for prospect theory. Raises TrainingError for
    labels that an objective cannot use, and if nothing is left.
    """
    if not examples:
        return [], {}
    if isinstance(objective, Preference):
        return _pairs(examples)
    if isinstance(objective, ProspectTheory):
        return _mixed(examples, seed), {}
    if isinstance(objective, PolicyGradient):
        return list(_groups(examples).values()), {}
    return [(example,) for example in examples], {}


def _groups(examples: Sequence[Tokenised]) -> dict[str, Unit]:
    """Collect the examples of each group, in order; without a group, each is one of its own."""
    found: dict[str, list[Tokenised]] = {}
    for example in examples:
        found.setdefault(example.group or f"/{example.index}", []).append(example)
    return {name: tuple(group) for name, group in found.items()}


def _signed(examples: Sequence[Tokenised], objective: str) -> None:
    for example in examples:
        if example.label not in (1.0, -1.0):
            raise TrainingError(
                f"the example of task {example.task!r} has label {example.label:g}; {objective} takes 1 (wanted) and "
                "-1 (not wanted)"
            )


def _pairs(examples: Sequence[Tokenised]) -> tuple[list[Unit], Mapping[str, int]]:
    """Pair the wanted with the unwanted example of each group, wanted first; the n-th with the n-th of several."""
    _signed(examples, "preference")
    found: list[Unit] = []
    for group in _groups(examples).values():
        wanted = [e for e in group if e.label > 0]
        found += zip(wanted, (e for e in group if e.label < 0), strict=False)
    if not found:
        raise TrainingError(
            f"{len(examples)} examples hold no preference pair; a pair is two that share a group, labels 1 and -1"
        )
    alone = len(examples) - 2 * len(found)
    return found, {"no counterpart in its pair": alone} if alone else {}


def _mixed(examples: Sequence[Tokenised], seed: int) -> list[Unit]:
    """Deal the examples of both labels into as many units as there are of the rarer one."""
    _signed(examples, "prospect theory")
    random = Random(f"{seed}/labels")
    sides = [[e for e in examples if e.label > 0], [e for e in examples if e.label < 0]]
    for side in sides:
        random.shuffle(side)
    few, many = sorted(sides, key=len)
    if not few:
        raise TrainingError(
            f"all {len(many)} examples have one label; prospect theory needs wanted (1) and unwanted (-1) ones"
        )
    return [(one, *many[i :: len(few)]) for i, one in enumerate(few)]
