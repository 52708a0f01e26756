import pytest

from looper.memory.search.fusion import fuse


def test_fusion_by_hand() -> None:
    hits = fuse({"words": [(7, 9.0), (3, 8.0)], "identifiers": [(3, 2.0), (5, 1.0)], "vectors": []}, 10)
    assert [hit.chunk for hit in hits] == [3, 7, 5]
    assert [hit.score for hit in hits] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert hits[0].parts == {"words": 8.0, "identifiers": 2.0}


def test_agreement_outweighs_one_first_place_and_ties_go_to_the_older() -> None:
    hits = fuse({"a": [(1, 0.0), (2, 0.0)], "b": [(4, 0.0), (2, 0.0)]}, 2)
    assert [hit.chunk for hit in hits] == [2, 1]
    assert fuse({"a": [(1, 0.0)]}, 0) == []
