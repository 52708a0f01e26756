"""Full replay: every stage trains a fresh adapter on all that was ever learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.learning.fitting import Fitting, fitted, replaced
from looper.protocols import Lab
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class FullReplay(Fitting):
    """One adapter, trained anew on the examples of every stage so far, in their order.

    The upper end of what a strategy can retain, at a cost that grows with the number of stages; the first stage is
    plain fine-tuning.
    """

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with one adapter in place of all earlier ones.

        Raises NothingToLearn for too few tasks in this stage.
        """
        self.preflight(examples, lab)
        earlier = [example for past in lab.past for example in past.examples]
        lab.note({"replayed": len(earlier)})
        return replaced(skill, fitted(lab, [*earlier, *examples], start=None))
