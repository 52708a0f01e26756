"""Experiments that were tried before: by syntax tree, by resolved settings, by the words of description and diff."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any

from looper.memory.rows import Experiment

NEAR = 0.8
"""Jaccard similarity from which two texts are near-duplicates."""
FEWEST_WORDS = 3
"""Words that a description must have to be compared: `baseline` and `try again` say nothing."""

_TOKEN = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\w+|[^\w\s]")


class Likeness(StrEnum):
    """In what two experiments are alike, strongest first."""

    TREE = "tree"
    """The normalised syntax trees are equal: the same program."""
    CONFIG = "config"
    """The resolved settings are equal, with the digest of the rest of the code among them: the same program."""
    SETTINGS = "settings"
    """The recorded settings are equal, but say nothing of the rest of the code."""
    TEXT = "text"
    """The descriptions or the diffs are nearly the same."""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A prior experiment that is like a proposal."""

    experiment: str
    likeness: Likeness
    similarity: float
    """1 for equal trees and settings; Jaccard similarity for texts."""
    reason: str

    @property
    def exact(self) -> bool:
        """Whether it is the same program."""
        return self.likeness in (Likeness.TREE, Likeness.CONFIG)


def duplicates(proposal: Experiment, prior: Iterable[Experiment], *, near: float = NEAR) -> list[Duplicate]:
    """Return the prior experiments that a proposal repeats, the most alike first, then the latest.

    Every prior experiment is compared; what a text holds is worked out once for a process.
    """
    ranks = list(Likeness)
    found = [
        (place, duplicate)
        for place, other in enumerate(prior)
        if other.id != proposal.id and (duplicate := compare(proposal, other, near=near))
    ]
    found.sort(key=lambda pair: (ranks.index(pair[1].likeness), -pair[1].similarity, -pair[0]))
    return [duplicate for _, duplicate in found]


def compare(proposal: Experiment, other: Experiment, *, near: float = NEAR) -> Duplicate | None:
    """Return in what a proposal is like another experiment; None if in nothing."""
    differing = _differing(proposal.config, other.config)
    if proposal.ast_hash and proposal.ast_hash == other.ast_hash and not differing:
        # equal code with other recorded settings is another run, e.g. through the environment
        return Duplicate(
            experiment=other.id,
            likeness=Likeness.TREE,
            similarity=1.0,
            reason="the code after the change has the same syntax tree",
        )
    # the hash tells 1 from 1.0; comparing first spares it for nearly all
    if proposal.config and proposal.config == other.config and proposal.config_hash == other.config_hash:
        whole = "code" in proposal.config
        return Duplicate(
            experiment=other.id,
            likeness=Likeness.CONFIG if whole else Likeness.SETTINGS,
            similarity=1.0,
            reason="every resolved setting" + (" and the rest of the code are" if whole else " is") + " the same",
        )
    if differing and proposal.ast_hash and proposal.ast_hash == other.ast_hash:
        return None
    return _alike(proposal, other, near)


def _alike(proposal: Experiment, other: Experiment, near: float) -> Duplicate | None:
    texts = {
        "diffs": jaccard(diff_shingles(proposal.diff), diff_shingles(other.diff)),
        "descriptions": jaccard(word_shingles(proposal.description), word_shingles(other.description)),
    }
    what = max(texts, key=lambda name: texts[name])
    if texts[what] < near:
        return None
    reason = f"the {what} share {texts[what]:.0%} of their wording"
    return Duplicate(experiment=other.id, likeness=Likeness.TEXT, similarity=texts[what], reason=reason)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of shingles that two sets have in common; 0 where one is empty."""
    if not one or not other:
        return 0.0
    common = len(one & other)
    return common / (len(one) + len(other) - common)


@lru_cache(maxsize=20_000)
def word_shingles(text: str) -> frozenset[str]:
    """Return the words and pairs of words of a description, numbers by their value; empty for a very short one."""
    words = [
        word for token in _TOKEN.findall(text.lower()) if (word := _number(token)).strip("_") and word[0].isalnum()
    ]
    if len(words) < FEWEST_WORDS:
        return frozenset()
    return frozenset([*words, *(f"{a} {b}" for a, b in pairwise(words))])


@lru_cache(maxsize=20_000)
def diff_shingles(diff: str) -> frozenset[str]:
    """Return runs of three tokens of a diff's removed and added lines, apart; where they stand does not count."""
    out: set[str] = set()
    for line in diff.splitlines():
        if line[:1] not in ("+", "-") or line.startswith(("+++ ", "--- ")):
            continue
        code = line[1:].partition("#")[0]
        tokens = [_number(token) for token in _TOKEN.findall(code)]
        if tokens:
            out.update(f"{line[0]} {' '.join(tokens[n : n + 3])}" for n in range(max(1, len(tokens) - 2)))
    return frozenset(out)


def _number(token: str) -> str:
    """Write a number in one way, so that `0.040` is `.04`; other tokens stay as they are."""
    if token[0].isdigit() or token[0] == ".":
        try:
            return repr(float(token))
        except ValueError:
            return token
    return token


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the settings that both recorded, with different values; `code` is the tree's business."""
    return [name for name in one if name in other and name != "code" and one[name] != other[name]]
