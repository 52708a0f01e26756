"""The verdict: one sentence that the numbers allow, and what to keep in mind with it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from looper.metrics.power import ALPHA
from looper.metrics.wording import interval_text, label_of, p_text, percent, rate_text

FEW_TASKS = 30
LEAKY_SHARE = 0.1


class Finding(StrEnum):
    """What a run shows."""

    HELPED = "helped"
    HURT = "hurt"
    MIXED = "mixed"
    """Placebo and base disagree on the sign."""
    UNDETECTED = "no detectable difference"
    UNMEASURED = "nothing to compare"


def finding_of(difference: Mapping[str, Any]) -> Finding:
    """Return what one paired difference shows: the test and the interval must both exclude 0."""
    if difference["p_value"] < ALPHA and difference["low"] > 0:
        return Finding.HELPED
    if difference["p_value"] < ALPHA and difference["high"] < 0:
        return Finding.HURT
    return Finding.UNDETECTED


def headline_of(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the difference that the verdict rests on: over the placebo, or over base where there is no placebo."""
    difference: Mapping[str, Any] | None = metrics.get("transfer_over_placebo") or metrics.get("forward_transfer")
    return difference


def finding(metrics: Mapping[str, Any]) -> Finding:
    """Return what a run shows on its primary family: adapted against placebo, or against base without one."""
    own, headline = metrics.get("forward_transfer"), headline_of(metrics)
    if headline is None:
        return Finding.UNMEASURED
    found = finding_of(headline)
    if own is None or headline is own:
        return found
    if (found is Finding.HELPED and own["estimate"] <= 0) or (found is Finding.HURT and own["estimate"] >= 0):
        return Finding.MIXED
    return found


def sentence(metrics: Mapping[str, Any]) -> str:
    """Return the run's result in one honest sentence."""
    found, headline = finding(metrics), headline_of(metrics)
    family = metrics["primary"]
    if headline is None:
        base = metrics["resolve_rate"].get("base")
        solved = f": the base agent resolves {rate_text(base)}" if base else ""
        if "adapted" in metrics["infrastructure"]:  # counted by arm: it ran, but nothing pairs up
            return f"Nothing can be compared on {family}: no task was measured both before and after learning{solved}."
        return f"Nothing was learned, so there is nothing to compare on {family}{solved}."
    own, over = metrics.get("forward_transfer"), metrics.get("transfer_over_placebo")
    against = "placebo" if over else "base"
    numbers = f"{_numbers(headline)} against {against}"
    if over and own:
        numbers += f"; {_numbers(own)} against base"
    cause = "training" if metrics.get("learning") != {} else "notes"
    where = f"on {_count(headline['n'], 'held-out task')} of {family}"
    if found is Finding.HELPED:
        return f"Experience helped {where}: {numbers}{_no_placebo(over, cause)}."
    if found is Finding.HURT:
        return f"Experience hurt {where}: {numbers}{_no_placebo(over, cause)}."
    if found is Finding.MIXED:
        return f"No clear answer {where}, since placebo and base point in opposite directions: {numbers}."
    return f"No detectable difference {where}: {numbers}; {_reach(headline)}{_cause_alone(own, over, cause)}."


def caveats(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to keep in mind with the verdict, most important first."""
    found: list[str] = []
    if label_of(metrics["primary"]).startswith("positive control"):
        found.append(
            "The primary family is the positive control: it shows that the instrument can see an effect, "
            "not that the agent reasons better."
        )
    headline = headline_of(metrics)
    if headline and headline["n"] < FEW_TASKS:
        found.append(
            f"Only {_count(headline['n'], 'distinct task')} could be compared; treat any result as a first look."
        )
    failures = metrics["infrastructure"]["total"]
    if failures:
        found.append(f"The machine failed in {_count(failures, 'session')}; these are not in the rates.")
    overlap = metrics.get("held_out_trained_on", 0)
    if overlap:
        tasks = _count(overlap, "held-out task")
        found.append(f"Training also worked on {tasks} of the primary family: its rates are not held out.")
    leakage = metrics["leakage"].get(metrics["primary"])
    if leakage and leakage["share_over_half"] >= LEAKY_SHARE:
        share = percent(leakage["share_over_half"])
        found.append(f"In {share} of the tasks the issue holds at least half of the reference patch.")
    forgotten = metrics.get("forgetting")
    if forgotten and finding_of(forgotten) is Finding.HELPED:
        found.append(f"Forgetting: {interval_text(forgotten)} points lost on the families seen before.")
    return found


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _numbers(difference: Mapping[str, Any]) -> str:
    return f"{interval_text(difference)} points ({p_text(difference['p_value'])})"


def _no_placebo(over: Mapping[str, Any] | None, cause: str) -> str:
    return "" if over else f" (without a placebo arm, {cause} as such may be the cause)"


def _reach(difference: Mapping[str, Any]) -> str:
    effect = difference["detectable_effect"]
    if effect is None:
        return "so few tasks could not have shown any difference"
    return f"a true difference of {max(1, round(100 * effect))} points would have been found four times in five"


def _cause_alone(own: Mapping[str, Any] | None, over: Mapping[str, Any] | None, cause: str) -> str:
    """Say so where training or notes moved the agent, but own experience no more than the placebo."""
    if own is None or over is None:
        return ""
    found = finding_of(own)
    if found is Finding.HELPED:
        anything = "training on anything gives" if cause == "training" else "notes on anything give"
        return f"; the gain over base is not shown to be more than {anything}"
    if found is Finding.HURT:
        itself = "training itself" if cause == "training" else "notes themselves"
        return f"; {itself} cost performance, on own sessions and placebo alike"
    return ""
