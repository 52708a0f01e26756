"""Episodes as they were, as training examples: rejection sampling on the agent's own sessions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from looper import actions
from looper.chat import render, spans
from looper.errors import ConfigError, TrainingError
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
    conversation at any step, because the whole one is not what it answered; transcripts that another episode repeats
    word for word; those with no turn to learn; and those over the cap.
    """

    cap: int = 2
    """Most examples of one task; 0 is no limit. Tasks solved again and again otherwise crowd out the others."""
    only_resolved: bool = True
    """Take only sessions whose patch the hidden tests accept; false is the control that learns from all."""
    mask_failed: bool = True
    """Give turns that failed no weight; false learns from every turn that is an action."""
    limit: int = 0
    """Most examples in all, a sample that the seed decides; 0 is no limit."""

    def __post_init__(self) -> None:
        if self.cap < 0 or self.limit < 0:
            raise ConfigError(f"data.cap={self.cap} and data.limit={self.limit} cannot be negative; 0 is no limit")

    def examples(self, episodes: Sequence[Episode], seed: int) -> Sequence[Example]:
        """Return the examples, in order of task, attempt and digest."""
        selection = self.select(episodes, seed)
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(selection.skipped.items()))
        LOG.info("%d examples of %d episodes; left out: %s", len(selection.examples), len(episodes), left_out or "none")
        return selection.examples

    def select(self, episodes: Sequence[Episode], seed: int) -> Selection:
        """Return the examples and count what was left out.

        Raises TrainingError if a turn to learn is no action, or an episode's steps do not match its messages.
        """
        skipped: Counter[str] = Counter()
        seen: set[str] = set()
        taken: Counter[str] = Counter()
        chosen: list[Example] = []
        for episode in sorted(episodes, key=lambda e: (e.task, e.trajectory.attempt, e.digest)):
            reason = self._unfit(episode)
            example = None if reason else to_example(episode, mask_failed=self.mask_failed)
            if example is not None and not any(example.weights):
                reason = "without a turn to learn"
            elif example is not None and (text := digest_of([m.model_dump() for m in example.messages])) in seen:
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

    def _unfit(self, episode: Episode) -> str:
        """Return why an episode is left out before its text is looked at; '' if it is not."""
        if episode.infrastructure:
            return "failed for the machine's reasons"
        if self.only_resolved and not episode.resolved:
            return "unresolved"
        return "pruned" if any(step.pruned for step in episode.trajectory.steps) else ""


def to_example(episode: Episode, *, mask_failed: bool = True) -> Example:
    """Return an episode as an example, weight 1 on every assistant turn that went well.

    Raises TrainingError if a turn to learn is no action, or the steps do not match the messages.
    """
    trajectory = episode.trajectory
    replies = [message.content for message in trajectory.messages if message.role == "assistant"]
    if replies != [step.reply for step in trajectory.steps]:
        raise TrainingError(
            f"episode {episode.digest} of {episode.task} has {len(replies)} assistant messages that are not the "
            f"replies of its {len(trajectory.steps)} steps; delete the stored episode and run its session again"
        )
    steps = iter(trajectory.steps)
    weights = tuple(
        float(_teaches(next(steps), mask_failed)) if m.role == "assistant" else 0.0 for m in trajectory.messages
    )
    example = Example(task=episode.task, episode=episode.digest, messages=trajectory.messages, weights=weights)
    _verify(example)
    return example


def _teaches(step: Step, mask_failed: bool) -> bool:
    """Whether a turn is worth imitating: a whole action of its own, done as asked."""
    whole = bool(step.reply) and step.reply == step.reply.strip() and step.calls == 1 and not step.cut
    return whole and step.action != actions.FormatError.kind and (step.ok or not mask_failed)


def _verify(example: Example) -> None:
    """Check that the training text is what inference renders, and that every turn to learn is an action."""
    parts = spans(example.messages, example.weights)
    if "".join(part.text for part in parts) != render(example.messages):
        raise TrainingError(f"episode {example.episode} of {example.task} is rendered differently for training")
    for message, weight in zip(example.messages, example.weights, strict=True):
        if weight and isinstance(found := actions.parse(message.content), actions.FormatError):
            raise TrainingError(
                f"episode {example.episode} of {example.task} has a turn to learn that is no action "
                f"({found}): {message.content[:80]!r}; delete the stored episode and run its session again"
            )
