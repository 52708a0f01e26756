"""What a campaign has used up so far, and which limit that is beyond."""

from __future__ import annotations

from dataclasses import dataclass, replace

from looper.campaigns.options import Campaign
from looper.records import Trajectory


@dataclass(kw_only=True)
class Spending:
    """Sums over a campaign; what a stored result once took is counted as if it were run now."""

    runs: int = 0
    """Trainings."""
    train_seconds: float = 0.0
    seconds: float = 0.0
    """Sessions, training and scoring."""
    asked: int = 0
    """Replies of a model that counts tokens."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    """Replies whose price is not known."""

    def train(self, train_seconds: float, seconds: float) -> None:
        """Count a training and its scoring."""
        self.runs += 1
        self.train_seconds += train_seconds
        self.seconds += seconds

    def session(self, session: Trajectory) -> None:
        """Count a session."""
        self.seconds += session.seconds
        for step in session.steps:
            self.asked += bool(step.prompt_tokens or step.completion_tokens)
            self.prompt_tokens += step.prompt_tokens
            self.completion_tokens += step.completion_tokens
            self.cost += step.cost or 0.0
            self.unpriced += step.metered and step.cost is None

    def copy(self) -> Spending:
        """Return the sums as they are now."""
        return replace(self)

    def beyond(self, options: Campaign) -> str:
        """Return which limit is reached; '' for none."""
        tokens = self.prompt_tokens + self.completion_tokens
        if options.hours is not None and self.seconds >= 3600 * options.hours:
            return f"campaign.hours={options.hours:g} are used up"
        if options.tokens is not None and tokens >= options.tokens:
            return f"campaign.tokens={options.tokens} are used up"
        if options.cost is not None and self.unpriced:
            return f"campaign.cost={options.cost:g} cannot be held: the price of {self.unpriced} replies is unknown"
        if options.cost is not None and self.cost >= options.cost:
            return f"campaign.cost={options.cost:g} is used up"
        return ""

    def tokens_since(self, before: Spending) -> dict[str, float | None]:
        """Return tokens and cost of what came after `before`; None where no model that counts was asked."""
        if self.asked == before.asked:
            return {"prompt_tokens": None, "completion_tokens": None, "cost": None}
        return {
            "prompt_tokens": self.prompt_tokens - before.prompt_tokens,
            "completion_tokens": self.completion_tokens - before.completion_tokens,
            "cost": None if self.unpriced > before.unpriced else self.cost - before.cost,
        }

    def since(self, before: Spending) -> dict[str, float | None]:
        """Return the sums of what came after `before`, by the names of a trial's fields."""
        return {
            "runs": self.runs - before.runs,
            "train_seconds": self.train_seconds - before.train_seconds,
            "seconds": self.seconds - before.seconds,
            **self.tokens_since(before),
        }
