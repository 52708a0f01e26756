"""What each stage of a stream did to each family."""

from looper.metrics.stream import columns
from looper.metrics.summary import summarise
from looper.report.stream import stream_table
from looper.report.table import as_text
from tests.metrics.test_summary import row

STAGES = ("a", "b", "a")
HELD = {0: {"a": 4, "b": 4}, 1: {"a": 9, "b": 1}, 2: {"a": 2, "b": 8}, 3: {"a": 9, "b": 5}}
"""Tasks of ten resolved after each stage."""


def outcomes():
    return [
        row(
            "adapted" if stage else "base",
            f"{family}{i}",
            i < count,
            stage=stage,
            family=family,
            on="ab".index(family) + 1,
        )
        for stage, counts in HELD.items()
        for family, count in counts.items()
        for i in range(10)
    ]


def test_a_stage_that_comes_again_shares_its_column() -> None:
    assert columns(STAGES) == [1, 2, 1]
    metrics = summarise(outcomes(), primary="a", stages=STAGES)
    assert metrics["matrix"] == [[0.4, 0.4, 0.4], [0.9, 0.1, 0.9], [0.2, 0.8, 0.2], [0.9, 0.5, 0.9]]
    assert metrics["continual"]["forgetting"] is not None


def test_what_the_next_stage_took_away_is_forgetting_with_a_test() -> None:
    metrics = summarise(outcomes(), primary="a", stages=STAGES)
    kept = metrics["stream"]["a"]["kept"]
    assert (kept["estimate"], kept["won"], kept["lost"], kept["p_value"]) == (-0.7, 0, 7, 0.015625)
    assert [r["rate"]["estimate"] for r in metrics["stream"]["b"]["stages"]] == [0.4, 0.1, 0.8, 0.5]
    assert metrics["stream"]["b"]["kept"]["estimate"] == -0.3


def test_the_table_has_a_row_a_run_and_shows_the_base_where_nothing_was_learned() -> None:
    learned = summarise(outcomes(), primary="a", stages=STAGES)
    nothing = summarise([o for o in outcomes() if o.arm == "base"], primary="a", stages=STAGES)
    text = as_text(stream_table([("sft", learned), ("none", nothing)]), width=120)
    assert "90 % [60, 98]" in text and "-70" in text.replace("−", "-")
    assert text.count("40 % [17, 69]") == 2 + 2 * 4
