import json

import pytest

from looper.errors import LooperError
from looper.metrics.outcomes import Outcome, values
from looper.metrics.summary import summarise
from looper.report.table import train_text


def row(arm, task, resolved, *, stage=None, **changes):
    fields = {
        "arm": arm,
        "stage": (0 if arm in ("base", "train") else 1) if stage is None else stage,
        "family": "natural",
        "pair": task,
        "task": task,
        "resolved": resolved,
        "patched": True,
        "infrastructure": False,
        "steps": 4,
        "tokens": 60,
        "seconds": 0.4,
        "exit": "done",
    }
    return Outcome(**(fields | changes))


def three_arms(n=40):
    outcomes = []
    for i in range(n):
        outcomes.append(row("base", f"t{i}", i % 5 == 0))
        outcomes.append(row("adapted", f"t{i}", i % 5 < 3))
        outcomes.append(row("placebo", f"t{i}", i % 5 == 1))
    return outcomes


def test_the_keys_that_others_read():
    metrics = summarise(three_arms(), primary="natural", learning={"examples": 31})
    assert metrics["resolve_rate"]["base"]["estimate"] == 0.2
    assert metrics["forward_transfer"]["estimate"] == pytest.approx(0.4)
    assert metrics["transfer_over_placebo"]["estimate"] == pytest.approx(0.4)
    for difference in (metrics["forward_transfer"], metrics["transfer_over_placebo"]):
        assert {"estimate", "low", "high", "n", "p_value", "detectable_effect"} <= difference.keys()
    assert set(metrics["families"]["natural"]) >= {"resolve_rate", "forward_transfer", "transfer_over_placebo"}
    assert metrics["matrix"] == [[0.2], [0.6]]
    assert metrics["usage"]["adapted"]["exits"] == {"done": 40}
    assert metrics["infrastructure"] == {"total": 0, "base": 0, "adapted": 0, "placebo": 0}
    assert metrics["n_worlds"] == 1
    assert metrics["learning"] == {"examples": 31}
    assert metrics["verdict"]["finding"] == "helped"
    json.dumps(metrics, allow_nan=False)


def test_an_absent_arm_is_absent_and_never_zero():
    metrics = summarise([o for o in three_arms() if o.arm == "base"], primary="natural")
    assert list(metrics["resolve_rate"]) == ["base"]
    assert metrics["forward_transfer"] is metrics["transfer_over_placebo"] is metrics["forgetting"] is None
    assert metrics["train"] is None
    assert metrics["matrix"] == [[0.2], [None]]
    assert metrics["verdict"]["finding"] == "nothing to compare"


def test_times_are_under_seconds_keys_only():
    def timeless(node):
        if isinstance(node, dict):
            return {k: timeless(v) for k, v in node.items() if not k.startswith("seconds")}
        return [timeless(v) for v in node] if isinstance(node, list) else node

    fast, slow = three_arms(), [row(o.arm, o.task, o.resolved, seconds=9.0) for o in three_arms()]
    first, second = summarise(fast, primary="natural"), summarise(slow, primary="natural")
    assert first != second
    assert timeless(first) == timeless(second)


def test_the_order_of_sessions_changes_nothing():
    outcomes = three_arms()
    assert summarise(outcomes, primary="natural") == summarise(outcomes[::-1], primary="natural")


def test_counterbalanced_worlds_are_one_task():
    outcomes = []
    for i in range(10):
        for world in ("main", "backup"):
            common = {"world": world, "pair": f"t{i}"}
            outcomes.append(row("base", f"{world}/t{i}", world == "main", **common))
            outcomes.append(row("adapted", f"{world}/t{i}", True, **common))
    metrics = summarise(outcomes, primary="natural")
    assert metrics["n_worlds"] == 2
    assert metrics["resolve_rate"]["base"]["n"] == 10
    assert metrics["resolve_rate"]["base"]["estimate"] == 0.5
    assert metrics["forward_transfer"]["won"] == 10


def test_arms_in_different_worlds_are_not_compared():
    outcomes = [row("base", "t", True, world="main"), row("adapted", "t", True, world="backup")]
    with pytest.raises(LooperError, match="run in worlds"):
        summarise(outcomes, primary="natural")


def test_machine_failures_are_excluded_and_counted():
    outcomes = three_arms()
    outcomes[1] = row("adapted", "t0", False, infrastructure=True, exit="error")
    metrics = summarise(outcomes, primary="natural")
    assert metrics["infrastructure"] == {"total": 1, "base": 0, "adapted": 1, "placebo": 0}
    assert (metrics["forward_transfer"]["n"], metrics["forward_transfer"]["excluded"]) == (39, 1)
    assert metrics["resolve_rate"]["adapted"]["excluded"] == 1
    assert any("failed in 1 session" in caveat for caveat in metrics["verdict"]["caveats"])


def test_a_machine_that_failed_everywhere_is_not_called_nothing_learned():
    outcomes = [row(arm, "t", False, infrastructure=True) for arm in ("base", "adapted", "placebo")]
    metrics = summarise(outcomes, primary="natural")
    assert metrics["resolve_rate"] == {}
    assert metrics["forward_transfer"] is metrics["transfer_over_placebo"] is None
    assert metrics["verdict"]["sentence"].startswith("Nothing can be compared on natural: no task was measured both")


def test_a_failed_session_is_replaced_by_another_attempt_but_not_by_another_world():
    failed = {"infrastructure": True}
    assert values([row("base", "t", True), row("base", "t", False, **failed)]) == {"t": 1.0}
    assert values([row("base", "t", True, world="a"), row("base", "t", False, world="b", **failed)]) == {"t": None}


def test_forgetting_is_the_drop_on_the_seen_family():
    seen = [row(arm, f"s{i}", arm == "base" or i > 8, family="seen") for i in range(20) for arm in ("base", "adapted")]
    metrics = summarise(three_arms() + seen, primary="natural")
    assert metrics["forgetting"]["estimate"] == pytest.approx(9 / 20)
    assert metrics["families"]["seen"]["label"] == "forgetting"
    assert metrics["families"]["seen"]["forward_transfer"]["estimate"] == pytest.approx(-9 / 20)


def test_the_last_stage_counts_and_the_matrix_keeps_all():
    outcomes = [row("base", f"{on}{i}", False, on=on) for on in (1, 2) for i in range(4)]
    for stage in (1, 2):
        outcomes += [row("adapted", f"{on}{i}", i < stage, stage=stage, on=on) for on in (1, 2) for i in range(4)]
    metrics = summarise(outcomes, primary="natural")
    assert metrics["matrix"] == [[0, 0], [0.25, 0.25], [0.5, 0.5]]
    assert metrics["resolve_rate"]["adapted"]["estimate"] == 0.5
    assert metrics["continual"]["forward_transfer"] == 0.25


def test_a_train_session_judged_in_two_worlds_is_one_session_and_two_verdicts():
    rows = [
        row("train", f"{world}/x{i // 3}", world == "a" and i < 5, world=world, pair=f"x{i // 3}", session=f"s{i}")
        for i in range(9)
        for world in ("a", "b")
    ]
    train = summarise(three_arms() + rows, primary="natural")["train"]
    counts = {key: value for key, value in train.items() if key != "resolve_rate"}
    assert counts == {"sessions": 9, "verdicts": 18, "worlds": 2, "resolved_verdicts": 5, "unique_resolved": 2}
    assert train_text(train) == "5 of 18 verdicts (9 sessions in 2 worlds) resolved, 2 distinct tasks"
    assert train_text({**train, "verdicts": 9}) == "5 of 9 sessions resolved, 2 distinct tasks"


def test_the_patch_rate_counts_distinct_tasks():
    rows = [row("train", f"x{i // 3}", False, patched=i in (0, 1, 2, 3)) for i in range(6)]
    rate = summarise(three_arms() + rows, primary="natural")["usage"]["train"]["patch_rate"]
    assert (rate["n"], rate["estimate"]) == (2, pytest.approx(2 / 3))


def test_train_sessions_are_apart_and_overlap_is_told():
    outcomes = three_arms() + [row("train", f"x{i // 2}", i % 2 == 0) for i in range(8)] + [row("train", "t3", True)]
    metrics = summarise(outcomes, primary="natural")
    assert metrics["train"]["sessions"] == 9
    assert metrics["train"]["unique_resolved"] == 5
    assert metrics["held_out_trained_on"] == 1
    assert "train" not in metrics["resolve_rate"]
    assert any("not held out" in caveat for caveat in metrics["verdict"]["caveats"])


def test_leakage_counts_each_task_once():
    outcomes = [row(arm, f"t{i}", True, leakage=0.8 if i < 2 else 0.0) for i in range(4) for arm in ("base", "adapted")]
    metrics = summarise(outcomes, primary="natural")
    assert metrics["leakage"]["natural"] == {"mean": 0.4, "max": 0.8, "share_over_half": 0.5, "n": 4}
    assert summarise(three_arms(), primary="natural")["leakage"] == {"natural": None}


def test_a_primary_family_that_was_not_probed_is_an_error():
    with pytest.raises(LooperError, match="'conventions'; probed: natural"):
        summarise(three_arms(), primary="conventions")


def test_unequal_tasks_are_an_error_naming_them():
    with pytest.raises(LooperError, match="no outcome for t7"):
        summarise([o for o in three_arms() if (o.arm, o.task) != ("adapted", "t7")], primary="natural")


def test_what_servers_took_is_added_up_and_an_unknown_price_stays_unknown():
    paid = {"metered": True, "prompt_tokens": 1000}
    outcomes = [row("base", f"t{i}", True, **paid, cost=0.25, session=f"s{i // 2}") for i in range(4)]
    outcomes += [row("adapted", f"t{i}", True, **paid, cost=0.5 if i else None) for i in range(4)]
    outcomes += [row("placebo", f"t{i}", True, prompt_tokens=1000) for i in range(4)]
    usage = summarise(outcomes, primary="natural")["usage"]
    assert usage["base"]["served"] == {"prompt_tokens": 2000, "completion_tokens": 120, "cost": 0.5}
    assert usage["adapted"]["served"] == {"prompt_tokens": 4000, "completion_tokens": 240, "cost": None}
    assert usage["placebo"]["served"] is None
