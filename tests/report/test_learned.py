from looper.report.learned import adapters_of, conduct_rows, has_conduct, learned_notes


def row(examples, available=None, *, world="", stage=1, skipped=""):
    facts = {"world": world, "stage": stage, "examples": examples, "available": available or examples}
    return {**facts, "skipped": skipped} if skipped else facts


def test_matched_arms_are_told_in_one_line():
    learning = {
        "adapted": [row(20, 25, world="A"), row(18, world="B")],
        "placebo": [row(20, world="A"), row(18, world="B")],
    }
    assert learned_notes(learning) == [
        "Examples learned from: adapted 20 (world A), 18 (world B); placebo 20 (world A), 18 (world B)."
    ]
    assert learned_notes({}) == []
    assert learned_notes({"adapted": [row(7)]}) == ["Examples learned from: adapted 7."]


def test_an_arm_without_examples_is_not_passed_off_as_matched():
    learning = {
        "adapted": [row(20, world="A"), row(18, world="B")],
        "placebo": [row(20, world="A"), row(0, world="B", skipped="0 tasks with usable examples")],
    }
    told = learned_notes(learning)
    assert "placebo 20 (world A), none (world B)" in told[0]
    assert told[1:] == [
        "Not matched (world B): adapted from 18, placebo from none.",
        "Where arms are not matched, their difference also holds the effect of training as such.",
        "The placebo arm learned nothing (world B): 0 tasks with usable examples.",
    ]


def test_a_placebo_that_was_left_alone_is_explained():
    alone = "the arm that it is compared with learned nothing there"
    learning = {"adapted": [row(0, skipped="0 tasks")], "placebo": [row(0, 8, skipped=alone)]}
    assert learned_notes(learning) == [
        "Examples learned from: adapted none; placebo none.",
        "The adapted arm learned nothing: 0 tasks.",
        "The placebo arm learned nothing: the arm that it is compared with learned nothing there.",
    ]


def test_the_reason_is_the_strategys_own_where_it_says_that_it_used_nothing():
    told = learned_notes({"adapted": [row(0, 25, skipped="none of 20 updates had a signal")]})
    assert told[1:] == ["The adapted arm learned nothing: none of 20 updates had a signal."]


def test_examples_in_another_format_are_labelled():
    told = learned_notes({"adapted": [{**row(8), "native": False}], "placebo": [{**row(8), "native": False}]})
    assert told[1].startswith("Format mismatch: ") and len(told) == 2


def test_many_steps_are_summed():
    own = [row(5, stage=i, world=world) for i in range(1, 9) for world in ("A", "B")]
    placebo = [row(0, stage=i, world=world, skipped="too few") for i in range(1, 9) for world in ("A", "B")]
    told = learned_notes({"adapted": own, "placebo": placebo})
    assert told[0] == "Examples learned from: adapted 80 in 16 steps of learning; placebo 0 in 16 steps of learning."
    assert told[1] == "Not matched (stage 1, world A): adapted from 5, placebo from none."
    assert told[5] == "Not matched either: 12 more of 16 steps of learning."
    assert told[-1] == "The placebo arm learned nothing (16 of 16 steps of learning): too few."


def test_conduct_is_shown_stage_by_stage_once_something_was_learned():
    share = {"estimate": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    row = {"stage": 0, "sessions": 8, "premature_done": share, "parse_error": None, "steps": {"median": 4.5, "p90": 9}}
    assert not has_conduct({"conduct": {"base": [row]}})
    metrics = {"conduct": {"base": [row], "adapted": [{**row, "stage": 2}]}}
    assert has_conduct(metrics)
    assert conduct_rows(metrics) == [
        ["base", "nothing", "8", "25 % [10, 50]", "—", "4.5 (9)"],
        ["adapted", "stage 2", "8", "25 % [10, 50]", "—", "4.5 (9)"],
    ]


def test_the_adapters_are_those_of_the_last_stage_in_every_world():
    rows = [{**row(5, stage=stage, world=world), "adapters": [f"{world}{stage}"]} for stage in (1, 2) for world in "AB"]
    assert adapters_of({"learning": {"adapted": rows, "placebo": [{**row(5), "adapters": ["p"]}]}}) == ["A2", "B2"]
    assert adapters_of({"learning": {}}) == adapters_of({"learning": {"adapted": [row(5)]}}) == []
