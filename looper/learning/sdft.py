"""Self-distillation: the model learns what it would have said, had it seen a worked solution of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from looper.chat import render_notes
from looper.errors import ConfigError, NothingToLearn
from looper.learning.comparing import usable, whole
from looper.learning.continuing import continued
from looper.learning.fitting import Fitting, facts, learned_from
from looper.learning.patches import parse_patch
from looper.protocols import Ability, Lab, SelfDistillation
from looper.records import Episode, Example, Note, Recall, Skill


class Sessions(Enum):
    """Whose turns the student learns on."""

    examples = "examples"
    on_policy = "on_policy"


def solution(episode: Episode, characters: int) -> str:
    """Return what the session changed as a note for the prompt, cut at `characters`; '' for an empty patch."""
    parts = []
    for change in parse_patch(episode.trajectory.patch):
        old, new = (" ".join(" ".join(lines).split()) for lines in (change.removed, change.added))
        if old and new:
            parts.append(f"in {change.path} replace `{old}` by `{new}`")
        elif old or new:
            parts.append(f"in {change.path} {f'add `{new}`' if new else f'remove `{old}`'}")
    if not parts:
        return ""
    return render_notes(Recall(notes=(Note(text=f"this issue was solved: {'; '.join(parts)}"[:characters]),)))


@dataclass(frozen=True, kw_only=True)
class Sdft(Fitting):
    """Distils the base model that sees a worked solution into the model that does not (after 2601.19897).

    Teacher: the base model with a resolved session's final edit as a note before the issue. Student: the adapter on
    its own session, without the note; loss KL(teacher || student) on the session's turns. In the paper the teacher is
    the learning model itself, the divergence is the reverse one and the sessions are the student's own, which
    `sessions=on_policy` gives here too. Tasks that no session of the stage resolved have no solution to show and are
    left out. Later stages continue the last adapter.
    """

    sessions: Sessions = Sessions.examples
    """examples: this stage's examples; on_policy: new attempts with the skill as it is, failed ones too."""
    attempts: int = 2
    """New attempts at each task (on_policy)."""
    sampling: float = 1.0
    """Temperature of the new attempts (on_policy)."""
    temperature: float = 1.0
    """Temperature of both distributions in the loss."""
    characters: int = 600
    """Longest note about a solution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attempts < 1 or self.characters < 1:
            raise ConfigError(
                f"strategy.attempts={self.attempts} and strategy.characters={self.characters} have to be positive"
            )
        if self.temperature <= 0.0 or self.sampling < 0.0:
            raise ConfigError(
                f"strategy.temperature={self.temperature} has to be above 0, "
                f"strategy.sampling={self.sampling} at least 0"
            )

    @property
    def imitates(self) -> bool:
        """The teacher says what is learned on a session, not the session."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """The student follows a teacher's distribution."""
        return frozenset({Ability.self_distillation})

    def taught(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> list[Example]:
        """Return the examples that the student learns on, with what the teacher is shown.

        A solution from another session than the example's own is preferred.
        """
        if self.sessions is Sessions.on_policy:
            tried = lab.rollout(skill, attempts=self.attempts, temperature=self.sampling, name="sdft")
            examples = [whole(episode) for episode in tried if usable(episode)]
        solved: dict[str, list[tuple[str, str]]] = {}
        for episode in sorted(lab.episodes, key=lambda e: (e.trajectory.attempt, e.digest)):
            if episode.resolved and (text := solution(episode, self.characters)):
                solved.setdefault(episode.task, []).append((episode.digest, text))
        out = []
        for example in examples:
            if known := solved.get(example.task):
                text = next((text for digest, text in known if digest != example.episode), known[0][1])
                out.append(example.model_copy(update={"privileged": text}))
        return out

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with its last adapter trained to do without the solutions.

        Raises NothingToLearn if too few tasks have a solution, TrainingError for an adapter of another base model.
        """
        found = self.taught(skill, examples, lab)
        if not found:
            resolved = sum(episode.resolved for episode in lab.episodes)
            raise NothingToLearn(
                f"{resolved} of {len(lab.episodes)} sessions were resolved, and no session to learn on has a worked "
                "solution of its task; raise attempts, or work on easier tasks"
            )
        self.preflight(found, lab)
        learned, fit = continued(skill, found, lab, objective=SelfDistillation(temperature=self.temperature))
        lab.note({"distilled_sessions": len(found), **learned_from(found), **facts(fit)})
        return learned
