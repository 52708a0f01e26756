"""Pairs of a wanted and an unwanted continuation, from the agent's own sessions (for DPO and its kin)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from looper.errors import ConfigError
from looper.learning.data.facts import Cure, cures_of
from looper.learning.data.native import in_order, one_action, replies_match, text_digest, verify
from looper.learning.data.trajectory import to_example
from looper.protocols import Materials
from looper.records import Episode, Example, Message, digest_of

LOG = logging.getLogger(__name__)

Couple = tuple[Example, Example]


class Level(StrEnum):
    """What is compared."""

    SESSIONS = "sessions"
    STEPS = "steps"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class PreferenceData:
    """Two examples a pair, with one `group`: label 1 is wanted, -1 is not.

    Sessions: a resolved session against a failed one of the same task; the turns that both begin with carry no weight,
    since they are not what made the difference. Steps: after the same conversation, the call that worked against the
    one that failed before it (a change against a failed change of the same file, a read against a read); only that turn
    carries weight. Left out are sessions that failed for the machine's reasons, what the model answered to a pruned
    conversation, and turns that are no whole action.
    """

    level: Level = Level.BOTH
    """Compare whole sessions, single steps, or both."""
    cap: int = 4
    """Most pairs of one task, sessions before steps; 0 is no limit."""

    def __post_init__(self) -> None:
        if self.cap < 0:
            raise ConfigError(f"data.cap={self.cap} cannot be negative; 0 is no limit")

    @property
    def native(self) -> bool:
        """The examples are sessions, or their beginnings, in the agent's own format."""
        return True

    @property
    def demonstrates(self) -> bool:
        """The examples are the sessions themselves."""
        return False

    @property
    def rejects(self) -> bool:
        """Half of the examples are what was not wanted."""
        return True

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return the pairs in order of task; of each the wanted example comes first.

        Raises TrainingError if a turn to learn is no action, or an episode's steps do not match its messages.
        """
        fit = [e for e in in_order(episodes) if not e.infrastructure and e.trajectory.steps]
        taken: Counter[str] = Counter()
        seen: set[tuple[str, str]] = set()
        couples: list[Couple] = []
        for task in dict.fromkeys(episode.task for episode in fit):
            for couple in self._couples([e for e in fit if e.task == task]):
                texts = (text_digest(couple[0].messages), text_digest(couple[1].messages))
                if texts in seen or texts[0] == texts[1] or (self.cap and taken[task] >= self.cap):
                    continue
                seen.add(texts)
                taken[task] += 1
                couples.append(couple)
        LOG.info("%d preference pairs of %d tasks, from %d sessions", len(couples), len(taken), len(fit))
        return tuple(example for couple in couples for example in couple)

    def _couples(self, episodes: Sequence[Episode]) -> Iterator[Couple]:
        if self.level is not Level.STEPS:
            yield from session_couples(episodes)
        if self.level is not Level.SESSIONS:
            for episode in episodes:
                yield from step_couples(episode)


def session_couples(episodes: Sequence[Episode]) -> Iterator[Couple]:
    """Yield resolved against failed sessions of one task; those of equal rank first."""
    complete = [e for e in episodes if not any(step.pruned for step in e.trajectory.steps)]
    wanted = [to_example(e) for e in complete if e.resolved]
    unwanted = [to_example(e, mask_failed=False) for e in complete if not e.resolved]
    ranks = [(i, j) for i in range(len(wanted)) for j in range(len(unwanted))]
    for i, j in sorted(ranks, key=lambda ij: (abs(ij[0] - ij[1]), ij)):
        good, bad = wanted[i], unwanted[j]
        shared = _shared(good.messages, bad.messages)
        if shared < 2:  # other prompts: one has recalled notes that the other has not
            continue
        pair = _couple(_from(good, shared), _from(bad, shared))
        if any(pair[0].weights) and any(pair[1].weights):
            yield pair


def step_couples(episode: Episode) -> Iterator[Couple]:
    """Yield each failed step of a session against the step that cured it, after the same conversation."""
    replies_match(episode)
    steps = episode.trajectory.steps
    for cure in _nearest(cures_of(steps)):
        failed, cured = steps[cure.at], steps[cure.cured_at]
        if failed.pruned or not (one_action(failed) and one_action(cured)):
            continue
        turns = [i for i, m in enumerate(episode.trajectory.messages) if m.role == "assistant"]
        prefix = episode.trajectory.messages[: turns[cure.at]]
        pair = _couple(_step(episode, prefix, cured.reply), _step(episode, prefix, failed.reply))
        for example in pair:
            verify(example)
        yield pair


def _nearest(cures: Iterable[Cure]) -> list[Cure]:
    """Return cures in order, without those whose failed step repeats an earlier one word for word."""
    return list({(cure.failed, cure.cured_at): cure for cure in reversed(list(cures))}.values())[::-1]


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """Return how many messages two conversations begin with in common."""
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return same


def _from(example: Example, first: int) -> Example:
    """Return an example that teaches only from a message on."""
    weights = tuple(w if i >= first else 0.0 for i, w in enumerate(example.weights))
    return example.model_copy(update={"weights": weights})


def _step(episode: Episode, prefix: Sequence[Message], reply: str) -> Example:
    messages = (*prefix, Message(role="assistant", content=reply))
    weights = (*(0.0 for _ in prefix), 1.0)
    return Example(task=episode.task, episode=episode.digest, messages=messages, weights=weights)


def _couple(wanted: Example, unwanted: Example) -> Couple:
    """Give two examples one group and their labels."""
    group = digest_of([wanted.episode, text_digest(wanted.messages), unwanted.episode, text_digest(unwanted.messages)])
    return (
        wanted.model_copy(update={"label": 1.0, "group": group}),
        unwanted.model_copy(update={"label": -1.0, "group": group}),
    )
