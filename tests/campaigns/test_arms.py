"""The arm that draws evenly: what was tried on a program is not drawn again before the rest was."""

from __future__ import annotations

from looper.benchmarks.research.benchmark import Research
from looper.campaigns.arms import Even, since_kept
from looper.campaigns.trials import Fate, Trial


def trial(number: int, description: str, fate: Fate) -> Trial:
    return Trial(number=number, fate=fate, reason="", description=description, patch="", commit="", best=4.0)


def drawn(arm: Even, trials: list[Trial]) -> str:
    return arm.shown(len(trials) + 1, Research().files()["train.py"], trials, []).partition(":")[0]


def test_a_method_is_not_drawn_again_before_all_others_were() -> None:
    arm, trials = Even(seed=3), list[Trial]()
    while (name := drawn(arm, trials)) not in since_kept(trials):
        trials.append(trial(len(trials) + 1, name, Fate.DISCARD))
    assert len(trials) > 20
    assert len({one.description for one in trials}) == len(trials)
    others = {drawn(arm, trials[:count]) for count in range(len(trials))}
    assert others == {one.description for one in trials}


def test_a_kept_program_is_another_one() -> None:
    trials = [trial(1, "muon", Fate.DISCARD), trial(2, "rope", Fate.KEEP), trial(3, "swiglu", Fate.CRASH)]
    assert since_kept(trials) == {"swiglu"}
    assert since_kept(trials[:1]) == {"muon"}
    assert since_kept(trials[:2]) == since_kept([]) == set()
    first = [drawn(Even(seed=seed), []) for seed in range(8)]
    assert [drawn(Even(seed=seed), []) for seed in range(8)] == first and len(set(first)) > 3
