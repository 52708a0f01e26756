"""Tables against golden files; `LOOPER_UPDATE_GOLDEN=1 pytest tests/report` writes them anew."""

import csv
import io
import os
from pathlib import Path

import pytest

from looper.metrics.paired import compare
from looper.report.export import csv_text, safe
from looper.report.grid import _against, differing, grid
from looper.report.table import as_text, cost_text, run_table
from tests.report.conftest import make_metrics

GOLDEN = Path(__file__).parent / "golden"


def check(name, text):
    path = GOLDEN / name
    if os.environ.get("LOOPER_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["metrics", "base_only", "no_placebo"])
def test_the_table_of_a_run(name, request):
    text = as_text(run_table(request.getfixturevalue(name)))
    assert max(map(len, text.splitlines())) <= 80
    check(f"table_{name}.txt", text)


def test_the_grid_of_a_sweep(base_only, no_placebo):
    runs = [
        ({"strategy": "sft", "retrieval": "none", "seed": 0}, no_placebo),
        ({"strategy": "none", "retrieval": "none"}, base_only),
    ]
    assert differing(runs) == ["strategy", "seed"]
    check("grid.txt", as_text(grid(runs)))
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_a_run_with_experience_is_compared_with_the_first_that_has_none(no_placebo, sessions):
    base = make_metrics([s for s in sessions if s[0] == "base" and s[2].family == "natural"], primary="natural")
    assert _against(base, {**base}) is not None and _against(base, base) is None
    both = {**no_placebo, "tasks": {**no_placebo["tasks"], "base": base["tasks"]["base"]}}
    found = _against(both, base)
    assert found == compare(both["tasks"]["adapted"], base["tasks"]["base"]).model_dump()
    assert found != compare(both["tasks"]["base"], base["tasks"]["base"]).model_dump()


def test_a_grid_of_one_run_still_names_its_row(no_placebo):
    assert "natural" in as_text(grid([({"seed": 1}, no_placebo)]))


def test_csv_has_every_rate_and_difference_and_no_invented_number(metrics, base_only):
    rows = list(csv.DictReader(io.StringIO(csv_text([({"seed": 1}, metrics), ({"seed": 2}, base_only)]))))
    assert [row["seed"] for row in rows].count("2") == 1
    assert len(rows) == 4 * (3 + 2) + 1
    headline = next(row for row in rows if row["quantity"] == "transfer_over_placebo")
    assert float(headline["estimate"]) == pytest.approx(metrics["transfer_over_placebo"]["estimate"])
    assert rows[-1]["p_value"] == ""


def test_csv_cells_are_no_formulas():
    assert safe("=1+1") == "'=1+1"
    assert safe(-0.5) == -0.5


def test_markup_in_names_is_shown_not_obeyed(no_placebo):
    renamed = {**no_placebo, "primary": "[red]x", "families": {"[red]x": no_placebo["families"]["natural"]}}
    renamed["leakage"] = {}
    assert "[red]x" in as_text(run_table(renamed))


def test_tokens_and_cost_are_shown_where_a_server_counted_them(no_placebo):
    assert "served" not in as_text(run_table(no_placebo)) and "cost" not in as_text(run_table(no_placebo))
    usage = no_placebo["usage"]
    served = {"prompt_tokens": 1_234_567, "completion_tokens": 890}
    paid = {
        "base": {**usage["base"], "served": {**served, "cost": 1.5}},
        "adapted": {**usage["adapted"], "served": {**served, "cost": None}},
        "train": {**usage["base"], "served": None},
    }
    text = as_text(run_table({**no_placebo, "usage": paid}), width=130)
    base, adapted, train = (next(line for line in text.splitlines() if line.startswith(f"  {arm}")) for arm in paid)
    assert "1,234,567 + 890    1.5000" in base and "unknown" in adapted and "1.5" not in adapted
    assert train.count("—") == 2
    assert [cost_text({"served": {**served, "cost": cost}}) for cost in (0.0, 1e-6)] == ["0.0000", "under 0.0001"]


def test_reports_of_older_runs_have_no_conduct_and_are_still_shown(no_placebo):
    older = {key: value for key, value in no_placebo.items() if key != "conduct"}
    older["usage"] = {arm: {k: v for k, v in row.items() if k != "served"} for arm, row in older["usage"].items()}
    assert "Conduct" in as_text(run_table(no_placebo)) and "Conduct" not in as_text(run_table(older))
