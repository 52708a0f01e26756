"""Sessions that are compared with one another: resolved against failed ones of the same task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.learning.data.native import in_order, replies_match
from looper.learning.data.trajectory import to_example
from looper.protocols import Lab
from looper.records import Episode, Example, Message, Step, digest_of


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The sessions of one task that began with the same messages."""

    task: str
    resolved: tuple[Episode, ...]
    failed: tuple[Episode, ...]


def whole(episode: Episode, label: float = 1.0, group: str = "") -> Example:
    """Return a session with weight 1 on every turn that the model chose, those that went wrong too.

    Left without weight are turns that cannot be scored token by token: empty ones, those cut at the token limit (the
    model never ended them), and those with blanks at an end, which would be tokenised with the template around them.

    Raises TrainingError if the steps do not match the messages.
    """
    replies_match(episode)
    steps = iter(episode.trajectory.steps)
    messages = episode.trajectory.messages
    weights = tuple(float(_scorable(next(steps))) if m.role == "assistant" else 0.0 for m in messages)
    return Example(
        task=episode.task, episode=episode.digest, messages=messages, weights=weights, label=label, group=group
    )


def _scorable(step: Step) -> bool:
    return bool(step.reply) and step.reply == step.reply.strip() and not step.cut


def usable(episode: Episode) -> bool:
    """Whether a session was the agent's own doing, seen whole by the model, with a turn to learn from."""
    if episode.infrastructure or any(step.pruned for step in episode.trajectory.steps):
        return False
    return any(_scorable(step) for step in episode.trajectory.steps)


def contested(lab: Lab, examples: Sequence[Example]) -> list[Contest]:
    """Group a stage's own sessions by task; reference solutions among `examples` do not say which of them count."""
    return contests(lab.episodes, lab.sessions(lab.episodes) if lab.demonstrated else examples)


def contests(episodes: Sequence[Episode], examples: Sequence[Example]) -> list[Contest]:
    """Group a stage's usable sessions by task and first messages, in order of task; repeated transcripts count once.

    Resolved sessions are those that `examples` come from, so that what the data option left out (leaks, sessions over
    the cap, arms matched in number) stays out.
    """
    chosen = {example.episode for example in examples}
    found: dict[tuple[str, str], tuple[list[Episode], list[Episode]]] = {}
    seen: set[str] = set()
    for episode in in_order(episodes):
        if not usable(episode) or (episode.resolved and episode.digest not in chosen):
            continue
        text = digest_of([episode.task, *(_told(m) for m in episode.trajectory.messages)])
        if text in seen:
            continue
        seen.add(text)
        opening = digest_of([_told(m) for m in episode.trajectory.messages[:2]])
        resolved, failed = found.setdefault((episode.task, opening), ([], []))
        (resolved if episode.resolved else failed).append(episode)
    return [Contest(task=key[0], resolved=tuple(won), failed=tuple(lost)) for key, (won, lost) in found.items()]


def _told(message: Message) -> list[str]:
    return [message.role, message.content]


def pairs(contests: Sequence[Contest], cap: int) -> list[Example]:
    """Return preferred and rejected sessions in turn, at most `cap` pairs of a task, each pair a group of its own.

    The preferred session's turns that failed carry no weight; the rejected one is rejected whole.
    """
    out: list[Example] = []
    for contest in contests:
        won = [e for e in map(to_example, contest.resolved) if any(e.weights)]
        if not won or not contest.failed:
            continue
        for i in range(min(cap, max(len(won), len(contest.failed)))):
            preferred, rejected = won[i % len(won)], contest.failed[i % len(contest.failed)]
            group = f"{contest.task}/{preferred.episode}/{rejected.digest}"
            out += [preferred.model_copy(update={"group": group}), whole(rejected, -1.0, group)]
    return out


def singles(contests: Sequence[Contest], cap: int) -> list[Example]:
    """Return resolved sessions labelled 1 and failed ones labelled -1, at most `cap` of each for a task."""
    out: list[Example] = []
    for contest in contests:
        out += [e for e in map(to_example, contest.resolved[:cap]) if any(e.weights)]
        out += [whole(episode, -1.0) for episode in contest.failed[:cap]]
    return out


def complete(examples: Sequence[Example]) -> list[Example]:
    """Return the examples whose group holds a preferred and a rejected one: what a data option paired already."""
    labels: dict[str, set[bool]] = {}
    for example in examples:
        labels.setdefault(example.group, set()).add(example.label > 0)
    return [e for e in examples if e.group and len(labels[e.group]) == 2]
