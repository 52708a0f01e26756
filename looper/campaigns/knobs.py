"""The numeric constants of a program as knobs, and Optuna's estimator over them."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import Any

from looper.errors import ConfigError, MachineError
from looper.parsing import parsed

REACH = 4.0
"""A real constant is drawn from a quarter to four times its value, evenly in its logarithm."""
DOUBLINGS = 1
"""A whole one is halved or doubled at most so often, so that what divides another still does."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A constant `NAME = number` at the top of a program."""

    name: str
    value: float | int
    line: str
    """The whole line."""
    span: tuple[int, int]
    """Where the number begins and ends in it, in bytes of UTF-8, as the parser counts."""

    def put(self, value: float | int) -> str:
        """Return the line with another value; what stands around it stays."""
        (begin, end), line = self.span, self.line.encode()
        return (line[:begin] + repr(value).encode() + line[end:]).decode()


def knobs(program: str) -> list[Knob]:
    """Return the knobs of a program: upper-case names that are assigned a positive number at its top level.

    The assignment has to stand on one line, alone but for a comment. Of several to a name the last one counts.
    """
    lines = program.split("\n")
    found = {}
    for node in parsed(program).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        (target, *others), number = node.targets, node.value
        line, value = lines[node.lineno - 1], number.value
        if not isinstance(target, ast.Name) or not target.id.isupper() or others or not _alone(node, line):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            span = number.col_offset, number.end_col_offset or number.col_offset
            found[target.id] = Knob(name=target.id, value=value, line=line, span=span)
    return list(found.values())


def _alone(node: ast.Assign, line: str) -> bool:
    raw = line.encode()
    before, after = raw[: node.col_offset].strip(), raw[node.end_col_offset :].strip()
    return node.lineno == node.end_lineno and not before and (not after or after.startswith(b"#"))


def edits_of(program: str, values: dict[str, float | int]) -> list[dict[str, str]]:
    """Return the edits that give a program's constants other values."""
    there = {knob.name: knob for knob in knobs(program)}
    changed = [(there[name], value) for name, value in values.items() if name in there and there[name].value != value]
    return [{"search": f"{knob.line}\n", "replace": f"{knob.put(value)}\n"} for knob, value in changed]


class Sampler:
    """Asks for values of all knobs of a program, and is told their scores. Raises MachineError without Optuna."""

    def __init__(self, program: str, *, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MachineError("the arm tpe needs Optuna: pip install 'looper[research]', or leave it out") from error
        self.knobs = knobs(program)
        if not self.knobs:
            raise ConfigError("the arm tpe needs constants such as `LR = 0.003` at the top of train.py; there is none")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._study.enqueue_trial({knob.name: 0 for knob in self.knobs if isinstance(knob.value, int)})
        self._trial: Any = None
        self._failed = optuna.trial.TrialState.FAIL

    def ask(self) -> dict[str, float | int]:
        """Return the next values."""
        self._trial = self._study.ask()
        return {knob.name: self._value(knob) for knob in self.knobs}

    def _value(self, knob: Knob) -> float | int:
        if isinstance(knob.value, int):
            power: int = self._trial.suggest_int(knob.name, -DOUBLINGS, DOUBLINGS)
            return max(1, round(knob.value * 2.0**power))
        high = min(knob.value * REACH, 1.0) if knob.value < 1.0 else knob.value * REACH
        value: float = self._trial.suggest_float(knob.name, knob.value / REACH, high, log=True)
        return _short(value)

    def tell(self, score: float | None) -> None:
        """Say what the last values scored; None if they did not get to a score."""
        if self._trial is None:
            return
        if score is None:
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, score)
        self._trial = None


def _short(value: float) -> float:
    """Return three significant digits: what a person would write."""
    return round(value, 2 - math.floor(math.log10(abs(value))))
