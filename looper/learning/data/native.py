"""What examples in the agent's own format have in common: which turns teach, and that they parse back."""

from __future__ import annotations

from collections.abc import Iterable

from looper import actions
from looper.chat import render, spans
from looper.errors import TrainingError
from looper.records import Episode, Example, Message, Step, digest_of


def in_order(episodes: Iterable[Episode]) -> list[Episode]:
    """Return episodes in order of task, attempt and digest, whatever order they come in."""
    return sorted(episodes, key=lambda e: (e.task, e.trajectory.attempt, e.digest))


def text_digest(messages: Iterable[Message]) -> str:
    """Return what two examples with the same words share."""
    return digest_of([message.model_dump() for message in messages])


def one_action(step: Step) -> bool:
    """Whether a turn is one whole action of its own: not cut, not several calls, no blanks around it."""
    one = bool(step.reply) and step.reply == step.reply.strip() and step.calls == 1 and not step.cut
    return one and step.action != actions.FormatError.kind


def replies_match(episode: Episode) -> None:
    """Check that an episode's steps are its assistant messages. Raises TrainingError."""
    trajectory = episode.trajectory
    replies = [message.content for message in trajectory.messages if message.role == "assistant"]
    if replies != [step.reply for step in trajectory.steps]:
        raise TrainingError(
            f"episode {episode.digest} of {episode.task} has {len(replies)} assistant messages that are not the "
            f"replies of its {len(trajectory.steps)} steps; delete the stored episode and run its session again"
        )


def verify(example: Example) -> None:
    """Check that the training text is what inference renders, and that every turn to learn is an action.

    Raises TrainingError that shows the turn.
    """
    parts = spans(example.messages, example.weights)
    if "".join(part.text for part in parts) != render(example.messages):
        raise TrainingError(f"episode {example.episode} of {example.task} is rendered differently for training")
    for message, weight in zip(example.messages, example.weights, strict=True):
        if weight and isinstance(found := actions.parse(message.content), actions.FormatError):
            raise TrainingError(
                f"episode {example.episode} of {example.task} has a turn to learn that is no action "
                f"({found}): {message.content[:80]!r}; delete the stored episode and run its session again"
            )
