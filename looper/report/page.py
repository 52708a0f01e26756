"""The report of a run as one self-contained HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from looper.metrics import wording
from looper.report import plot
from looper.report.learned import CONDUCT, conduct_rows, has_conduct
from looper.report.sessions import Session, result_of, sample, view, visible
from looper.report.table import (
    COMPARISONS,
    LEGEND,
    Metrics,
    cost_text,
    notes,
    ordered_families,
    served_text,
    shown_arms,
    shown_comparisons,
    spread_text,
)

if TYPE_CHECKING:
    from jinja2 import Environment, Template

SESSION_BYTES = 2_500_000
"""Bytes of the page that sessions may take; the whole stays under 3 MB."""


def page(
    metrics: Metrics,
    *,
    facts: Mapping[str, Any],
    sessions: Sequence[Session] = (),
    title: str = "looper run",
    session_bytes: int = SESSION_BYTES,
) -> str:
    """Return the page.

    `facts` are shown as they come: texts and numbers as a list, nested values (the configuration) folded.
    Sessions are sampled over arm, family and result where they would make the file too large; the page
    says how many of how many are shown.
    """
    card = template("session.html.jinja")
    cards: dict[int, str] = {}

    def size(i: int) -> int:
        cards[i] = card.render(session=view(sessions[i]))
        return len(cards[i].encode())

    chosen = sample(sessions, size, session_bytes)
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    flat, folded, style = facts_of(facts)
    return template("page.html.jinja").render(
        title=title,
        metrics=metrics,
        verdict=metrics["verdict"],
        families=ordered_families(metrics),
        arms=shown_arms(metrics),
        comparisons={key: COMPARISONS[key] for key in shown_comparisons(metrics)},
        legend=LEGEND,
        notes=notes(metrics),
        served=any(row.get("served") for row in metrics["usage"].values()),
        conduct=conduct_rows(metrics) if has_conduct(metrics) else [],
        conduct_legend=CONDUCT[0].upper() + CONDUCT[1:],
        rates_plot=plot.rates(metrics),
        differences_plot=plot.differences(metrics),
        curves=plot.curves(metrics["learning"]),
        facts=flat,
        folded=folded,
        cards=[Markup(cards[i]) for i in chosen],
        n_sessions=len(sessions),
        choices=_choices([sessions[i] for i in chosen]),
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
    )


def write(path: Path, html: str) -> None:
    """Write the page whole: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(html, encoding="utf-8")
    draft.replace(path)


def template(name: str) -> Template:
    """Return a template of the report."""
    return _environment().get_template(name)


def facts_of(facts: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str], str]:
    """Return facts as a list, nested ones as folded text, and the style of every page."""
    return _flat(facts), _folded(facts), _resource("page.css")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    names = ("page.html.jinja", "session.html.jinja", "campaign.html.jinja")
    environment = Environment(
        loader=DictLoader({name: _resource(name) for name in names}),
        autoescape=True,  # by name it would not know the .jinja ending
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rate": wording.rate_text,
        "points": wording.interval_text,
        "p": wording.p_text,
        "detects": wording.detectable_text,
        "percent": wording.percent,
        "spread": spread_text,
        "served": served_text,
        "cost": cost_text,
        "together": together,
    }
    return environment


def together(text: str) -> str:
    """Return text in which no line breaks inside an interval or a p-value."""
    return re.sub(r"\[\S+ \S+\]|\(?p [=<] \S+", lambda match: match.group().replace(" ", "\u00a0"), text)


def _resource(name: str) -> str:
    return resources.files("looper.report").joinpath(name).read_text(encoding="utf-8")


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key): visible(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))
        for key, value in facts.items()
        if not isinstance(value, Mapping)
    }


def _folded(facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key): visible(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        for key, value in facts.items()
        if isinstance(value, Mapping)
    }


def _choices(sessions: Sequence[Session]) -> dict[str, list[str]]:
    return {
        "arm": list(dict.fromkeys(arm for arm, _, _ in sessions)),
        "family": list(dict.fromkeys(episode.family for _, _, episode in sessions)),
        "result": sorted({result_of(episode) for _, _, episode in sessions}),
    }
