"""Campaigns in the terminal: arms, differences, and the trials of a single campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from looper.metrics.power import ALPHA
from looper.metrics.wording import ABSENT
from looper.report.learned import learned_notes

Metrics = Mapping[str, Any]
LEGEND = (
    "gain: bits per byte by which the best kept program beats the unchanged one on fresh seeds, mean over campaigns "
    "with Student's 95 % interval; real: campaigns whose gain is beyond the noise, as campaign.gate asks; best: median "
    "score at the end on the seed that was searched on, lowest and highest; kept: of all trials; runs: trainings; "
    "overhead: share of its parts' time that was not training; tokens: prompt + completion."
)


def is_campaign(metrics: Metrics) -> bool:
    """Tell whether a run's metrics are those of campaigns."""
    return metrics.get("kind") == "campaign"


def campaign_table(metrics: Metrics) -> RenderableType:
    """Return the tables of a run of campaigns and its sentence."""
    parts: list[RenderableType] = [arms_table([({}, metrics)])]
    if metrics["comparisons"]:
        parts.append(differences_table(metrics))
    if len(metrics["campaigns"]) == 1:
        parts += [Text(line) for line in kept_lines(metrics["campaigns"][0])]
    parts += [Padding(Text(LEGEND, style="dim"), (0, 0, 1, 0)), *(Text(line) for line in note_lines(metrics))]
    parts += [Text(f"Note: {line}", style="yellow") for line in metrics.get("notes", ())]
    parts.append(Padding(Text(metrics["verdict"], style="bold"), (1, 0, 0, 0)))
    return Group(*parts)


def arms_table(runs: Sequence[tuple[Mapping[str, Any], Metrics]], keys: Sequence[str] = ()) -> Table:
    """Return one row for every arm of every run; `keys` are the overrides that tell the runs apart."""
    table = Table(title="Campaigns", title_justify="left", box=box.HORIZONTALS, padding=0)
    for key in keys:
        table.add_column(key)
    table.add_column("arm", no_wrap=True)
    for column in ("gain", "real", "best", "kept", "runs", "overhead", "tokens"):
        table.add_column(column, justify="right", no_wrap=column == "gain")  # 80 columns hold the interval whole
    for overrides, metrics in runs:
        for name, arm in metrics["arms"].items():
            leading = [Text(str(overrides.get(key, ""))) for key in keys]
            table.add_row(*leading, *_cells(name, arm))
    return table


def _cells(name: str, arm: Metrics) -> list[Text]:
    best, costs = arm["best_at_k"], arm["costs"]
    kept = arm["fates"].get("keep", 0)
    spread = f"{best['median']:.4f}"
    if arm["campaigns"] > 1:
        spread += f"\n{best['low']:.4f} to {best['high']:.4f}"
    return [
        Text(name),
        Text(gain_text(arm["gain"]).replace(" [", "\n[")),
        Text(f"{arm['beyond_noise']} of {arm['campaigns']}"),
        Text(spread),
        Text(f"{kept} of {costs['trials']}"),
        Text(str(costs["runs"])),
        Text(f"{100 * costs['overhead']:.1f} %"),
        Text(tokens_text(costs)),
    ]


def gain_text(row: Metrics) -> str:
    """Return `+0.4321 [+0.4000, +0.4642]`."""
    text = f"{row['estimate']:+.4f}"
    return text if row["low"] is None else f"{text} [{row['low']:+.4f}, {row['high']:+.4f}]"


def tokens_text(costs: Metrics) -> str:
    """Return prompt and completion tokens, a dash where no model was asked."""
    if costs["prompt_tokens"] is None:
        return ABSENT
    return f"{costs['prompt_tokens']:,} + {costs['completion_tokens']:,}"


def differences_table(metrics: Metrics) -> Table:
    """Return the paired differences of the arms."""
    table = Table(
        title="Differences in gain, paired by replicate", title_justify="left", box=box.HORIZONTALS, padding=0
    )
    table.add_column("arms", no_wrap=True)
    for column in ("difference", "p", "won", "verdict", "needed"):
        table.add_column(column, justify="right", no_wrap=column == "difference")
    for row in metrics["comparisons"]:
        needed = row["replicates_needed"]
        table.add_row(
            f"{row['a']} − {row['b']}",
            gain_text(row),
            f"{row['p_value']:.4f}",
            f"{row['won']}/{row['n']}",
            row["verdict"],
            ABSENT if needed is None else str(needed),
        )
    table.caption = differences_note(metrics["comparisons"])
    table.caption_justify = "left"
    return table


def differences_note(rows: Sequence[Metrics]) -> str:
    """Return what the columns of the differences mean."""
    pairs = max(row["n"] for row in rows)
    least = 2 / 2**pairs
    text = "needed: replicates with which such a difference would be found four times in five; better, worse: the 95 % "
    text += "interval excludes 0, and p of the sign-flip test "
    text += f"is as low as {pairs} replicates allow, {least:.4f}" if least > ALPHA else f"is at most {ALPHA:.2f}"
    if len(rows) > 1:
        text += f"; {len(rows)} comparisons: at p < .05 one in twenty differs by chance alone"
    return text


def kept_lines(campaign: Metrics) -> list[str]:
    """Return what a campaign kept, and where its memory tells why."""
    kept = ", ".join(campaign["kept"]) or "nothing"
    return [
        f"Baseline {campaign['baseline']:.4f}, standard deviation {campaign['sigma']:.4f}, "
        f"best {campaign['best']:.4f}; the gain is {campaign['beyond']:.1f} standard errors.",
        f"Kept: {kept}. Ended: {campaign['stopped']}.",
    ]


def note_lines(metrics: Metrics) -> list[str]:
    """Return what everything cost, and what was learned from the sessions if anything was to be."""
    return cost_lines(metrics) + learned_notes(metrics.get("learning", {}))


def cost_lines(metrics: Metrics) -> list[str]:
    """Return what everything cost, the earlier campaigns apart."""
    costs = metrics["costs"]
    lines = [
        f"{costs['runs']} trainings, {costs['train_seconds']:,.0f} s of training, "
        f"{100 * costs['overhead']:.1f} % of {costs['seconds']:,.0f} s was not training (each part's own time, also of "
        "parts that ran at once)."
    ]
    lines += [
        f"{name}: {arm['failed_finals']} final runs of the best program had no score and count as no gain."
        for name, arm in metrics["arms"].items()
        if arm.get("failed_finals")
    ]
    earlier = next((arm["earlier"] for arm in metrics["arms"].values() if "earlier" in arm), None)
    if earlier and earlier["campaigns"]:
        lines.append(
            f"The memories were filled by {earlier['campaigns']} earlier campaigns: {earlier['runs']} trainings, "
            f"{earlier['train_seconds']:,.0f} s of training."
        )
    return lines
