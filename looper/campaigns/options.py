"""What a campaign may spend, when a change is kept, and which arms are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from looper.errors import ConfigError


class ArmName(Enum):
    """What a proposer is shown before it proposes; the last two need no model."""

    stateless = "stateless"
    """Nothing of the campaign; a recipe proposer draws from the literature alone."""
    stateful = "stateful"
    """This campaign's own results: a chat model reads them as a table, a recipe proposer as the memory's ranking."""
    memory = "memory"
    """These, and the brief and gate of a memory filled by earlier campaigns."""
    shuffled = "shuffled"
    """The same memory with what earlier campaigns measured dealt to other methods: the placebo of the memory arm."""
    random = "random"
    """A method of the pack that applies, drawn evenly."""
    tpe = "tpe"
    """Tree-structured Parzen estimator over the numeric constants (Optuna)."""


NEEDS_MEMORY = (ArmName.memory, ArmName.shuffled)
"""Arms that begin with what earlier campaigns left."""
NEEDS_NO_MODEL = (ArmName.random, ArmName.tpe)
"""Arms that make their own offers."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """One campaign for each arm and replicate; all arms of a replicate share seeds and budgets."""

    arms: list[ArmName] = field(default_factory=lambda: [ArmName.stateful])
    """Arms in the order of the table; the first difference that is reported is memory against stateful."""
    replicates: int = 1
    """Campaigns of each arm, each with seeds of its own."""
    experiments: int = 20
    """Proposals that a campaign tries; baselines, paired re-runs and final runs come on top and are counted."""
    baselines: int = 3
    """Seeds of the unchanged program; they measure the noise."""
    gate: float = 2.0
    """A gain counts as real beyond so many standard errors; more where few replicates tell the noise (Student)."""
    pairs: int = 2
    """Further seeds on which a gain inside the noise is run again, with its parent, before it is kept or discarded."""
    line_price: float = 0.0002
    """Gain that each line of code added to the program has to bring, in the metric's unit."""
    finals: int = 3
    """Fresh seeds on which the best program and the baseline are compared at the end."""
    earlier: int = 2
    """Earlier campaigns, on other seeds and splits of the corpus, that fill each memory; their cost is counted."""
    past: str = ""
    """A memory file to start from instead of earlier campaigns."""
    shown: int = 6
    """Methods that a proposer is shown."""
    brief_tokens: int = 8000
    """Length of what a proposer is shown."""
    proposals: int = 3
    """Proposals in a row that the memory may block or that change nothing before the experiment is given up."""
    hours: float | None = None
    """Stop a campaign before an experiment once its wall-clock is beyond this; null: no limit."""
    tokens: int | None = None
    """Stop once its sessions used so many tokens, prompt and completion; null: no limit."""
    cost: float | None = None
    """Stop once its sessions cost so much; null: no limit. A reply of unknown price stops the campaign too."""

    def __post_init__(self) -> None:
        """Refuse what makes no campaign."""
        if not self.arms:
            raise ConfigError(f"campaign.arms is empty; choose some of {', '.join(arm.value for arm in ArmName)}")
        if len(set(self.arms)) < len(self.arms):
            raise ConfigError(f"campaign.arms={[arm.value for arm in self.arms]} names an arm twice")
        lows = {"replicates": 1, "experiments": 1, "baselines": 2, "finals": 2, "shown": 1, "proposals": 1}
        for name, low in {**lows, "pairs": 0, "earlier": 0}.items():
            if getattr(self, name) < low:
                raise ConfigError(f"campaign.{name}={getattr(self, name)} is too small: it must be at least {low}")
        if self.past and not any(arm in NEEDS_MEMORY for arm in self.arms):
            names = " or ".join(arm.value for arm in NEEDS_MEMORY)
            raise ConfigError(
                f"campaign.past={self.past} has no effect without the arm {names}: add it to campaign.arms"
            )
        for name in ("gate", "line_price"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"campaign.{name}={getattr(self, name)} must not be below 0")
        for name in ("hours", "tokens", "cost"):
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"campaign.{name}={limit} must be above 0; null is no limit")
