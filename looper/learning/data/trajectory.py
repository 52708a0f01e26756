"""Episodes as they were, as training examples: rejection sampling on the agent's own sessions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from looper.errors import ConfigError, TrainingError
from looper.leakage import measure
from looper.learning.data.native import in_order, one_action, replies_match, text_digest, verify
from looper.protocols import Materials
from looper.records import Episode, Example, Step, digest_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Examples, and why the other episodes are not among them."""

    examples: tuple[Example, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of episodes left out, by reason."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryData:
    """Sessions as they were; the loss counts the assistant's turns, except those that went wrong.

    A turn has weight 0 if its step failed (a format error, a failed edit, a missing file, a blocked loop; unless
    `mask_failed` is false), if it was cut at the token limit, if it held calls that were not run, or if it begins or
    ends with blanks, which in training would be tokenised together with the template around them.

    Left out are: sessions that failed for reasons of the machine; sessions in which the model saw a pruned
    conversation at any step, because the whole one is not what it answered; those whose issue tells too much of the
    reference patch; transcripts that another episode repeats word for word; those with no turn to learn; and those
    over the cap.
    """

    cap: int = 2
    """Most examples of one task; 0 is no limit. Tasks solved again and again otherwise crowd out the others."""
    only_resolved: bool = True
    """Take only sessions whose patch the hidden tests accept; false is the control that learns from all."""
    mask_failed: bool = True
    """Give turns that failed no weight; false learns from every turn that is an action."""
    limit: int = 0
    """Most examples in all, a sample that the seed decides; 0 is no limit."""
    leakage: float = 1.0
    """Largest share of the reference patch's added lines that may stand word for word in the issue; 1 takes all."""

    def __post_init__(self) -> None:
        if self.cap < 0 or self.limit < 0:
            raise ConfigError(f"data.cap={self.cap} and data.limit={self.limit} cannot be negative; 0 is no limit")
        if not 0 <= self.leakage <= 1:
            raise ConfigError(f"data.leakage={self.leakage} is a share: give 0 (no line may leak) to 1 (take all)")

    @property
    def native(self) -> bool:
        """The examples are sessions in the agent's own format."""
        return True

    @property
    def demonstrates(self) -> bool:
        """The examples are the sessions themselves."""
        return False

    @property
    def rejects(self) -> bool:
        """All are to be imitated."""
        return False

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return the examples, in order of task, attempt and digest."""
        selection = self.select(episodes, seed, materials)
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(selection.skipped.items()))
        LOG.info("%d examples of %d episodes; left out: %s", len(selection.examples), len(episodes), left_out or "none")
        return selection.examples

    def select(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Selection:
        """Return the examples and count what was left out.

        Raises TrainingError if a turn to learn is no action, an episode's steps do not match its messages, or the
        task of an episode is needed for its leakage and not among the materials.
        """
        skipped: Counter[str] = Counter()
        seen: set[str] = set()
        taken: Counter[str] = Counter()
        chosen: list[Example] = []
        for episode in in_order(episodes):
            reason = self._unfit(episode, materials)
            example = None if reason else to_example(episode, mask_failed=self.mask_failed)
            if example is not None and not any(example.weights):
                reason = "without a turn to learn"
            elif example is not None and (text := text_digest(example.messages)) in seen:
                reason = "repeated"
            elif example is not None and self.cap and taken[example.task] >= self.cap:
                reason = "over the cap"
            elif example is not None:
                seen.add(text)
                taken[example.task] += 1
                chosen.append(example)
            if reason:
                skipped[reason] += 1
        if self.limit and len(chosen) > self.limit:
            drawn = sorted(chosen, key=lambda e: digest_of([seed, e.episode]))[: self.limit]
            skipped["over the limit"] = len(chosen) - self.limit
            chosen = [e for e in chosen if e in drawn]
        return Selection(examples=tuple(chosen), skipped=dict(skipped))

    def _unfit(self, episode: Episode, materials: Materials) -> str:
        """Return why an episode is left out before its text is looked at; '' if it is not."""
        if episode.infrastructure:
            return "failed for the machine's reasons"
        if self.only_resolved and not episode.resolved:
            return "unresolved"
        if any(step.pruned for step in episode.trajectory.steps):
            return "pruned"
        return "leaking" if self.leakage < 1 and self._share(episode, materials) > self.leakage else ""

    def _share(self, episode: Episode, materials: Materials) -> float:
        task = materials.tasks.get(episode.task)
        if task is None:
            raise TrainingError(
                f"the task {episode.task} is not at hand, so its leakage is unknown; set data.leakage=1"
            )
        return measure(task.issue, task.gold).score or 0.0  # a patch that adds nothing cannot be told


def to_example(episode: Episode, *, mask_failed: bool = True) -> Example:
    """Return an episode as an example, weight 1 on every assistant turn that went well.

    Raises TrainingError if a turn to learn is no action, or the steps do not match the messages.
    """
    replies_match(episode)
    trajectory = episode.trajectory
    steps = iter(trajectory.steps)
    weights = tuple(
        float(_teaches(next(steps), mask_failed)) if m.role == "assistant" else 0.0 for m in trajectory.messages
    )
    example = Example(task=episode.task, episode=episode.digest, messages=trajectory.messages, weights=weights)
    verify(example)
    return example


def _teaches(step: Step, mask_failed: bool) -> bool:
    """Whether a turn is worth imitating: a whole action of its own, done as asked."""
    return one_action(step) and (step.ok or not mask_failed)
