"""What is refused before a campaign: parts and values that it would ignore, and what an arm lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from looper.benchmarks.curricula import Split
from looper.benchmarks.research.benchmark import Research
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.improvable import is_improvable
from looper.campaigns.options import NEEDS_MEMORY, NEEDS_NO_MODEL, ArmName, Campaign
from looper.errors import ConfigError
from looper.guards import option_of
from looper.learning.data.trajectory import TrajectoryData
from looper.learning.sft import Sft
from looper.memory.ranking.settings import Cost, Ranking
from looper.memory.store import MemoryStore
from looper.models.recipe import Recipe
from looper.training.torch_trainer import TorchTrainer

ATTEMPTS = 3
"""Tries at a train task in a configuration that says nothing of them."""


def campaigning(parts: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Refuse a research benchmark without a campaign, and a campaign with what it would silently ignore.

    `plain` are the root's values as they were given. A value that says what every configuration says is no sign of a
    wish, so it passes.
    """
    benchmark, campaign = parts["benchmark"], "campaign" in parts
    if is_improvable(benchmark) and not campaign:
        name = type(benchmark).__module__.split(".")[-2]
        raise ConfigError(
            f"benchmark={name} is worked on in campaigns: give +campaign=standard with it, or +exp={name}"
        )
    if not campaign:
        for name, what in (("ranking", "the memory's ranking in"), ("learner", "the model that learns from")):
            if name in parts:
                given = "+ranking" if name == "ranking" else "+model@learner"
                raise ConfigError(f"{given} is {what} research campaigns; give +exp=research with it, or leave it out")
        return
    if not is_improvable(benchmark):
        raise ConfigError("a campaign needs a program to improve: give benchmark=research, or leave +campaign out")
    options: Campaign = parts["campaign"]
    if any(arm in NEEDS_MEMORY for arm in options.arms) and options.earlier and not options.past:
        benchmark.with_split(benchmark.corpus_split + 1)  # what earlier campaigns work on
    if options.past:
        if not Path(options.past).is_file():
            raise ConfigError(
                f"campaign.past={options.past} is no file: name the memory of an earlier campaign, such as "
                "outputs/runs/NAME/memory/ARM-1.db, or leave it out"
            )
        MemoryStore.open(Path(options.past), read_only=True).connection.close()
    if ArmName.tpe in options.arms and find_spec("optuna") is None:
        raise ConfigError("the arm tpe needs Optuna: pip install 'looper[research]', or leave it out of campaign.arms")
    _strategy(parts)
    _ignored(parts, plain)
    _unasked(parts, options, plain)


def _strategy(parts: Mapping[str, Any]) -> None:
    """Refuse a strategy that a campaign's sessions give nothing to, and parts of learning where nothing is learned."""
    strategy, data = parts["strategy"], parts["data"]
    if strategy.learns and not isinstance(strategy, Sft):
        raise ConfigError(
            f"strategy={option_of(strategy)} needs several stages, or several sessions of one task, and each trial of "
            "a research campaign is one session of its own: give strategy=none, sft, random_trajectory or format_only"
        )
    if strategy.learns:
        if not isinstance(data, TrajectoryData):
            raise ConfigError(
                f"data={option_of(data)} cannot be made from the sessions of a research campaign, which have neither "
                "tests nor a reference patch: give data=trajectory, or strategy=none"
            )
        if data.leakage < 1:
            raise ConfigError(
                f"data.leakage={data.leakage:g} has no effect in a research campaign, whose tasks have no reference "
                "patch: give data.leakage=1"
            )
        return
    for name, default in (("data", TrajectoryData()), ("trainer", TorchTrainer())):
        _as_composed(name, parts[name], default, f"with strategy={option_of(strategy)}", "or give strategy=sft")
    if "learner" in parts:
        raise ConfigError(
            f"+model@learner has no effect with strategy={option_of(strategy)}: give strategy=sft, or leave it out"
        )


def _ignored(parts: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Refuse parts and values that no campaign looks at."""
    if option_of(parts["retrieval"]) != "none":
        raise ConfigError(
            f"retrieval={option_of(parts['retrieval'])} has no effect in a research campaign: give retrieval=none; "
            "what is shown to the proposer is said by campaign.arms"
        )
    _as_composed("curriculum", parts["curriculum"], Split(), "in a research campaign", "as no tasks are held out")
    if plain.get("attempts", ATTEMPTS) != ATTEMPTS:
        raise ConfigError(
            f"attempts={plain['attempts']} has no effect in a research campaign: leave it out; campaign.experiments "
            "says how many proposals are tried, campaign.proposals how often one is asked for anew"
        )
    for name in ("supervisor", "synthesizer"):
        if name in parts:
            raise ConfigError(f"+model@{name} has no effect in a research campaign: leave it out")
    benchmark, usual = parts["benchmark"], Research.__dataclass_fields__["pace"].default
    if not isinstance(benchmark, Research):
        return
    if benchmark.budget_kind is not BudgetKind.seconds and benchmark.pace != usual:
        raise ConfigError(
            f"benchmark.pace={benchmark.pace:g} has no effect with benchmark.budget_kind="
            f"{benchmark.budget_kind.value}: leave it out, or give benchmark.budget_kind=seconds"
        )


def _unasked(parts: Mapping[str, Any], options: Campaign, plain: Mapping[str, Any]) -> None:
    """Refuse values that the chosen arms have no use for."""
    arms, usual = ", ".join(arm.value for arm in options.arms), Campaign()
    remembering = any(arm in NEEDS_MEMORY for arm in options.arms)
    if options.earlier != usual.earlier and (options.past or not remembering):
        why = f"with campaign.past={options.past}" if options.past else f"with campaign.arms=[{arms}]"
        out = "leave campaign.past out" if options.past else "add the arm memory or shuffled"
        raise ConfigError(f"campaign.earlier={options.earlier} has no effect {why}: leave it out, or {out}")
    asked = [arm for arm in options.arms if arm not in NEEDS_NO_MODEL]
    if not asked and not isinstance(parts["model"], Recipe):
        raise ConfigError(
            f"the model {parts['model'].id} is asked nothing with campaign.arms=[{arms}]: give model=recipe, or add an "
            "arm that asks it, such as stateful"
        )
    if not asked:
        for name in ("shown", "brief_tokens"):
            if getattr(options, name) != getattr(usual, name):
                raise ConfigError(
                    f"campaign.{name}={getattr(options, name)} has no effect with campaign.arms=[{arms}]: leave it "
                    "out, or add an arm that is shown something, such as stateful"
                )
        if "ranking" in parts:
            way = "or add an arm that is shown something, such as stateful"
            _as_composed("ranking", parts["ranking"], Ranking(cost=Cost.FREE), f"with campaign.arms=[{arms}]", way)
    if isinstance(parts["model"], Recipe) and float(plain.get("temperature", 1.0)) != 1.0:
        raise ConfigError(
            f"temperature={plain['temperature']} has no effect with model=recipe, which draws nothing: leave it out, "
            "or choose a model that does, such as model=http"
        )


def _as_composed(name: str, part: Any, default: Any, where: str, way: str) -> None:
    """Refuse a part that differs from what is composed without being asked for, naming what differs."""
    if type(part) is not type(default):
        raise ConfigError(f"{name}={option_of(part)} has no effect {where}: leave {name} out, {way}")
    for field in fields(default):
        value = getattr(part, field.name)
        if value != getattr(default, field.name):
            shown = getattr(value, "value", value)
            raise ConfigError(f"{name}.{field.name}={shown} has no effect {where}: leave it out, {way}")
