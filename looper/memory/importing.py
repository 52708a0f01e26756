"""Credits the experiments of a finished campaign with methods, from the code of their commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from looper.memory.credit import credit, roles
from looper.memory.ingestion.autoresearch import Campaign
from looper.memory.ingestion.git_calls import git
from looper.memory.rows import Experiment, Method


def credited(campaign: Campaign, folder: Path, *, code: str, methods: Sequence[Method]) -> tuple[Campaign, int]:
    """Return the campaign with methods where both the code before and after a change is still there, and how many."""

    @cache
    def text_of(experiment: str) -> str:
        commit = experiment.rsplit(":", 1)[-1]
        if not commit or commit == "unknown":
            return ""
        out = git("cat-file", "blob", f"{commit}:{code}", cwd=folder, okay=(128,))
        return "" if out is None else out.decode("utf-8", errors="replace")

    def with_methods(experiment: Experiment) -> Experiment:
        before, after = (text_of(experiment.parent), text_of(experiment.id)) if experiment.parent else ("", "")
        found = roles(credit(before, after, methods)) if before and after and experiment.diff else {}
        return experiment.model_copy(update={"methods": found}) if found else experiment

    experiments = tuple(with_methods(experiment) for experiment in campaign.experiments)
    return replace(campaign, experiments=experiments), sum(bool(experiment.methods) for experiment in experiments)
