"""Streams: two marked families with opposite conventions, and the stages that visit them."""

from __future__ import annotations

import pytest

from looper.benchmarks.bugs.benchmark import Bugs, FamilyKind
from looper.benchmarks.curricula import Stream
from looper.errors import ConfigError


@pytest.fixture(scope="module")
def benchmark() -> Bugs:
    return Bugs(family=FamilyKind.STREAM, size=9, probes=[FamilyKind.SEEN], probe_tasks=2)


@pytest.fixture(scope="module")
def tasks(benchmark):
    return benchmark.load(1)


def live_tree(task) -> str:
    return task.gold.split("+++ b/")[1].split("/")[1]


def test_the_families_have_opposite_conventions_and_a_folder_each(tasks) -> None:
    live = {(t.family, t.world): live_tree(t) for t in tasks if t.world}
    assert live == {
        ("first", "A"): "north",
        ("first", "B"): "south",
        ("second", "A"): "south",
        ("second", "B"): "north",
    }
    folders = {t.family: {p.split("/")[0] for p in t.source.files if "/north/" in p} for t in tasks if t.world}
    assert folders == {"first": {"harvester"}, "second": {"lighthouse"}}


def test_the_placebo_has_the_same_repositories_and_no_convention(benchmark, tasks) -> None:
    placebo = benchmark.placebo(1)
    own = [t for t in tasks if t.world == "A"]
    assert [t.public() for t in placebo] == [t.public() for t in own]
    assert not {t.id for t in placebo} & {t.id for t in own}
    assert {live_tree(t) for t in placebo if t.family == "first"} == {"north", "south"}


def test_stages_visit_families_again_with_new_work_and_the_same_held_out_tasks(tasks) -> None:
    world = [t for t in tasks if t.world in ("", "A")]
    stages = Stream(train=2, held_out=3).stages(world, 1)
    assert [s.name for s in stages] == ["first", "second", "first"]
    first, second, again = ({t.pair_id for t in s.train} for s in stages)
    assert len(first | second | again) == 6
    held = [[t for t in s.held_out if t.world] for s in stages]
    assert held[0] == held[2] and len(held[0]) == len(held[1]) == 3
    assert not {t.pair_id for t in held[0]} & (first | again)
    assert [t.family for t in stages[0].held_out if not t.world] == ["seen", "seen"]


def test_joint_stages_work_on_several_families(tasks) -> None:
    (stage,) = Stream(order=["first+second"], train=2, held_out=3).stages(tasks, 1)
    assert {t.family for t in stage.train} == {"first", "second"}
    assert len({t.pair_id for t in stage.train}) == 4


def test_impossible_streams_are_refused(tasks) -> None:
    with pytest.raises(
        ConfigError, match="'third', but the tasks are of: first, second, seen; give benchmark=bugs_stream"
    ):
        Stream(order=["third"], train=1, held_out=1).stages(tasks, 1)
    with pytest.raises(ConfigError, match="9 tasks; 2 stages of 4 and 3 held out"):
        Stream(train=4, held_out=3).stages(tasks, 1)
    with pytest.raises(ValueError, match="make no stream"):
        Stream(order=[])
    with pytest.raises(ConfigError, match="cannot hold stream"):
        Bugs(probes=[FamilyKind.STREAM])
