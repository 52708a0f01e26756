"""Two-copy repositories: same public half, the live tree by world or by coin."""

from __future__ import annotations

import pytest

from looper.benchmarks.bugs.draw import draw
from looper.benchmarks.bugs.family import conventions_family, two_copy_mix_family, unlearnable_family

PAIR = ("main", "backup")
LEARN, CONTROL = conventions_family(PAIR), unlearnable_family(PAIR)
INDEXES = range(1_000_000, 1_000_040)


@pytest.fixture(scope="module")
def quads():
    return [[draw(family, i, world=w) for family in (LEARN, CONTROL) for w in "AB"] for i in INDEXES]


def test_the_public_half_is_the_same_in_all_four(quads):
    for quad in quads:
        assert all(d.task.public() == quad[0].task.public() for d in quad)
        assert len({d.task.id for d in quad}) == 4
        assert len({d.task.pair for d in quad}) == 2


def test_one_tree_is_live_in_a_world_of_conventions(quads):
    for a, b, _, _ in quads:
        assert f"/{PAIR[0]}/" in a.bug.site.path and f"/{PAIR[1]}/" in b.bug.site.path
        assert a.bug.site == b.bug.other and a.bug.other == b.bug.site
        assert a.task.tests != b.task.tests


def test_the_live_tree_of_the_control_is_a_coin_and_flips_with_the_world(quads):
    first = [f"/{PAIR[0]}/" in c.bug.site.path for _, _, c, _ in quads]
    assert sum(first) == len(first) / 2, "neither tree is right more often"
    assert first[:8] not in ([True, False] * 4, [False, True] * 4)
    for _, _, c, d in quads:
        assert c.bug.site == d.bug.other


def test_the_two_copies_differ_in_the_tree_and_nothing_else(quads):
    for quad in quads:
        bug, (first, second) = quad[0].bug, quad[0].trees
        assert bug.site.path.replace(f"/{first}/", f"/{second}/") == bug.other.path


def test_the_mix_draws_its_live_copy_at_random():
    draws = [draw(two_copy_mix_family(i), i) for i in range(60)]
    assert 15 < sum(d.bug.site.path < d.bug.other.path for d in draws) < 45
    assert 15 < sum(f"/{d.trees[0]}/" in d.bug.site.path for d in draws) < 45
    assert len({tree for d in draws for tree in d.trees}) > 60
