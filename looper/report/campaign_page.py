"""The report of campaigns as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from looper.report.arms_plot import best_by_arm
from looper.report.campaign import LEGEND, differences_note, gain_text, note_lines, tokens_text
from looper.report.campaign_plot import progress
from looper.report.page import facts_of, template

MOST = 60
"""Campaigns that are drawn; a table names them all."""


def campaign_page(
    metrics: Mapping[str, Any],
    *,
    facts: Mapping[str, Any],
    trials: Mapping[str, Sequence[Mapping[str, Any]]],
    title: str,
) -> str:
    """Return the page; `trials` are those of each campaign by its name."""
    shown = metrics["campaigns"][:MOST]
    flat, folded, style = facts_of(facts)
    return template("campaign.html.jinja").render(
        title=title,
        metrics=metrics,
        legend=LEGEND,
        costs=note_lines(metrics),
        best=best_by_arm(metrics["arms"]),
        differences=differences_note(metrics["comparisons"]) if metrics["comparisons"] else "",
        gain_text=gain_text,
        tokens_text=tokens_text,
        campaigns=[(one, progress(one, trials[one["name"]]), trials[one["name"]]) for one in shown],
        left_out=len(metrics["campaigns"]) - len(shown),
        facts=flat,
        folded=folded,
        style=Markup(style),
    )
