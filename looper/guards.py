"""What is refused before the first session: parts that cannot work together, and models that cannot answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looper.errors import ConfigError
from looper.lab import untrainable
from looper.learning.fitting import Trains
from looper.protocols import Checked, Data, Form, Model, Stage, Strategy, Trainer
from looper.records import digest_of

Work = dict[str, dict[str, Sequence[Stage]]]
"""What is worked on: by arm and world, the stages."""


def answering(*models: object) -> None:
    """Raise ConfigError for a model that lacks what it needs to answer, such as its key."""
    for model in models:
        if isinstance(model, Checked):
            model.check()


def fitting_together(model: Model, data: Data, strategy: Strategy, trainer: Trainer, *, stages: int) -> None:
    """Refuse parts of which one needs what another does not give, in a run of so many stages.

    Raises ModelError for a model without weights where an adapter is to be trained, TrainingError for a trainer whose
    settings the strategy cannot use. Raises ConfigError for a trainer that lacks what the strategy asks for, for a
    model that could not run what is trained, and for rejected examples where the strategy would imitate them.
    """
    if isinstance(strategy, Trains):
        if model.weights is None:
            raise untrainable(model.id)
        _running(model, strategy, stages)
        strategy.suits(trainer)
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


def _running(model: Model, strategy: Trains, stages: int) -> None:
    """Refuse a strategy whose skill the model could not run; one that does not say what it takes, takes any."""
    form, taken = strategy.gives(stages), getattr(model, "forms", frozenset(Form))
    if form not in taken:
        takes = ", ".join(sorted(known.value for known in taken)) or "no adapter (a server with model.lora=true may)"
        other = "strategy=none" if not taken else "strategy=sft"
        raise ConfigError(
            f"strategy={option_of(strategy)} ends in {form.value}, and {model.id} takes {takes}; give {other}, or "
            "model=nano, whose model.scale=1 takes all"
        )


def split_alike(work: Work, probed: Mapping[str, Sequence[Stage]]) -> None:
    """Refuse arms that do not advance with the probes, and a split in which a held-out task is worked on."""
    count = len(next(iter(probed.values())))
    held_out = {digest_of(t.public()) for stages in probed.values() for s in stages for t in s.held_out}
    for arm, worlds in work.items():
        for stages in worlds.values():
            if len(stages) != count:
                raise ConfigError(
                    f"the curriculum gives the {arm} arm {len(stages)} stages and the probes {count}; give "
                    "placebo=false, or a curriculum that splits both alike"
                )
            both = [t.id for s in stages for t in s.train if digest_of(t.public()) in held_out]
            if both:
                raise ConfigError(
                    f"{len(both)} held-out tasks are worked on in the {arm} arm, e.g. {both[0]}; choose "
                    "another curriculum or seed"
                )


def option_of(part: Any) -> str:
    """Return the name under which a part is chosen: that of its module, as every strategy, data and trainer has it."""
    return type(part).__module__.rpartition(".")[2].removesuffix("_trainer")
