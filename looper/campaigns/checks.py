"""What is refused before a campaign: parts that it would ignore, and what an arm lacks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from looper.benchmarks.research.benchmark import Research
from looper.campaigns.options import ArmName, Campaign
from looper.errors import ConfigError
from looper.guards import option_of
from looper.memory.store import MemoryStore


def campaigning(parts: Mapping[str, Any]) -> None:
    """Refuse a research benchmark without a campaign, and a campaign with parts that it would silently ignore."""
    research, campaign = isinstance(parts["benchmark"], Research), "campaign" in parts
    if research and not campaign:
        raise ConfigError(
            "benchmark=research is worked on in campaigns: give +campaign=standard with it, or +exp=research"
        )
    if not campaign:
        if "ranking" in parts:
            raise ConfigError("+ranking is the memory's ranking in research campaigns; give +exp=research with it")
        return
    if not research:
        raise ConfigError("a campaign needs a program to improve: give benchmark=research, or leave +campaign out")
    options: Campaign = parts["campaign"]
    if options.past:
        MemoryStore.open(Path(options.past), read_only=True).connection.close()
    if ArmName.tpe in options.arms and find_spec("optuna") is None:
        raise ConfigError("the arm tpe needs Optuna: pip install 'looper[research]', or leave it out of campaign.arms")
    for name, wanted in (("strategy", "none"), ("retrieval", "none")):
        if option_of(parts[name]) != wanted:
            raise ConfigError(
                f"{name}={option_of(parts[name])} has no effect in a research campaign: give {name}={wanted}; what is "
                "shown to the proposer is said by campaign.arms"
            )
