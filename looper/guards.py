"""What is refused before the first session: parts that cannot work together, and models that cannot answer."""

from __future__ import annotations

from typing import Any

from looper.errors import ConfigError
from looper.lab import untrainable
from looper.learning.fitting import Trains
from looper.protocols import Checked, Data, Model, Strategy, Trainer


def answering(*models: object) -> None:
    """Raise ConfigError for a model that lacks what it needs to answer, such as its key."""
    for model in models:
        if isinstance(model, Checked):
            model.check()


def fitting_together(model: Model, data: Data, strategy: Strategy, trainer: Trainer, *, stages: int) -> None:
    """Refuse parts of which one needs what another does not give, in a run of so many stages.

    Raises ModelError for a model without weights where an adapter is to be trained. Raises ConfigError for a trainer
    that lacks what the strategy asks for, and for rejected examples where the strategy would imitate them.
    """
    if isinstance(strategy, Trains) and model.weights is None:
        raise untrainable(model.id)
    if lacking := strategy.asks(stages) - trainer.abilities:
        what = " and ".join(sorted(ability.value for ability in lacking))
        raise ConfigError(
            f"strategy={option_of(strategy)} needs {what}, which trainer={option_of(trainer)} does not know; give "
            "trainer=torch, or a strategy of plain fine-tuning, such as strategy=sft"
        )
    if data.rejects and strategy.imitates:
        raise ConfigError(
            f"data={option_of(data)} also gives sessions and steps that were rejected, and "
            f"strategy={option_of(strategy)} would imitate them; give data=trajectory, or a strategy that compares, "
            "such as strategy=dpo or strategy=kto"
        )


def option_of(part: Any) -> str:
    """Return the name under which a part is chosen: that of its module, as every strategy, data and trainer has it."""
    return type(part).__module__.rpartition(".")[2].removesuffix("_trainer")
