"""Campaigns of several arms: tables that 80 columns hold whole, a panel for each arm, and what the columns mean."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from looper.report.arms_plot import best_by_arm
from looper.report.campaign import campaign_table
from looper.report.campaign_page import campaign_page

ARMS = ("memory", "stateful", "stateless", "shuffled", "random", "tpe")


def arm(place: int, campaigns: int = 5) -> dict[str, Any]:
    curve = [{"low": 3.0 - place / 10, "median": 3.5, "high": 3.75 + k / 100} for k in range(13)]
    costs = {"trials": 60, "runs": 158, "overhead": 0.532, "train_seconds": 440.0, "prompt_tokens": None}
    return {
        "gain": {"estimate": -0.97, "low": -0.9536, "high": 0.9865, "n": campaigns},
        "beyond_noise": 5,
        "campaigns": campaigns,
        "best_at_k": curve[-1],
        "curve": curve,
        "fates": {"keep": 34},
        "costs": costs,
    }


def metrics(arms: tuple[str, ...] = ARMS) -> dict[str, Any]:
    row = {"estimate": 0.0263, "low": -0.361, "high": 0.4136, "p_value": 0.9375, "won": 2, "lost": 3, "n": 5}
    rows = [{"a": "stateful", "b": "stateless", **row, "verdict": "inconclusive", "replicates_needed": 1107}]
    costs = {"runs": 9, "train_seconds": 9.0, "seconds": 99.0, "overhead": 0.9}
    made = {name: arm(place) for place, name in enumerate(arms)}
    return {"kind": "campaign", "arms": made, "comparisons": rows, "campaigns": [], "costs": costs, "verdict": "So."}


def test_a_terminal_of_80_columns_cuts_nothing_off() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(campaign_table(metrics()))
    text = stream.getvalue()
    assert "…" not in text
    assert text.count("[-0.9536, +0.9865]") == len(ARMS)
    assert re.search(r"stateful − stateless \+0\.0263 \[-0\.3610, \+0\.4136\] 0\.9375 2/5 inconclusive +1107", text)
    assert "as low as 5 replicates allow, 0.0625" in " ".join(text.split())


def panels(arms: Mapping[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(best_by_arm(arms))


def test_every_arm_has_a_panel_with_its_range_and_the_others_medians() -> None:
    drawn = panels(metrics()["arms"])
    groups = drawn.findall("g")
    assert [group.findtext("text") for group in groups] == list(ARMS)
    for group in groups:
        kinds = [path.attrib["class"] for path in group.findall("path")]
        assert kinds == ["band", *["line other"] * 5, "line s0"]
    bands = [group.find("path") for group in groups]
    reach = [max(float(y) for y in re.findall(r" ([\d.]+)", band.attrib["d"])) for band in bands if band is not None]
    assert reach == sorted(reach) and reach[-1] == pytest.approx(130)  # the lowest of all is the foot of the panels


def test_one_arm_is_compared_with_nothing_and_flat_curves_are_drawn() -> None:
    assert best_by_arm({"memory": arm(0)}) == ""
    flat = arm(0) | {"curve": [{"low": 3.0, "median": 3.0, "high": 3.0}]}
    assert len(panels({"memory": flat, "random": flat}).findall("g")) == 2
    assert "nan" not in best_by_arm({"memory": flat, "random": flat})


def test_the_page_says_what_the_differences_mean() -> None:
    page = campaign_page(metrics(), facts={}, trials={}, title="t")
    assert "sign-flip test is as low as 5 replicates allow, 0.0625" in page
    assert page.count('class="panels"') == 1 and "Grey: the other arms" in page
    alone = metrics(("memory",)) | {"comparisons": []}
    assert "Grey: the other arms" not in campaign_page(alone, facts={}, trials={}, title="t")
