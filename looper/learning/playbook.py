"""Skill as text in the prompt: advice that earns or loses its place by the sessions that follow it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, NothingToLearn
from looper.learning.bullets import Bullets, Change, apply, pruned, read
from looper.learning.lessons import operations
from looper.learning.playbook_file import SkillFile, content, read_skill, write_skill
from looper.protocols import Ability, Lab
from looper.records import Example, Skill, digest_of

NAME = "learned-playbook"
"""Name of the exported skill."""


@dataclass(frozen=True, kw_only=True)
class Playbook:
    """Learns bullets with helpful and harmful counters by fixed rules; no weights change, no model writes.

    After every stage: bullets are added, edited and voted on (looper/learning/lessons.py), those that harm more than
    they help are dropped, and the best that fit stay in the prompt (after ACE, Zhang et al. 2025, without its models).
    Each stage's playbook is also written as a SKILL.md folder.
    """

    start: str = ""
    """Folder of a SKILL.md that the first stage begins with, kept word for word; empty starts from nothing."""
    support: int = 2
    """Solved tasks that have to agree before a folder or a course of actions becomes a bullet."""
    count: int = 12
    """Most learned bullets."""
    characters: int = 1200
    """Longest playbook in characters."""
    harm: float = 1.0
    """Weight of a failed session's vote against a resolved one's; below 1 where few sessions are resolved."""

    def __post_init__(self) -> None:
        for name in ("support", "count", "characters"):
            if getattr(self, name) < 1:
                raise ConfigError(f"strategy.{name}={getattr(self, name)} is not positive; choose 1 or more")
        if self.harm < 0.0:
            raise ConfigError(f"strategy.harm={self.harm} is negative; choose 0 (failures do not count) or more")

    @property
    def learns(self) -> bool:
        """The playbook changes."""
        return True

    @property
    def imitates(self) -> bool:
        """Fixed rules read the sessions."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """No trainer is used."""
        return frozenset()

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide what is learned: of a SKILL.md what it says, not where it lies."""
        return {**dataclasses.asdict(self), "start": content(self.start)}

    def beginning(self, skill: Skill) -> Bullets:
        """Return the playbook so far. Raises StoreError for an unusable SKILL.md, ConfigError for one too long."""
        if skill.playbook or not self.start:
            return read(skill.playbook)
        given = read(read_skill(Path(self.start)).body)
        if len(given.given) > self.characters:
            raise ConfigError(
                f"the SKILL.md in strategy.start={self.start} has {len(given.given)} characters, more than "
                f"strategy.characters={self.characters}; shorten it, or raise the limit"
            )
        return given

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with its playbook brought up to date from all of the stage's sessions.

        Raises NothingToLearn if no session can be learned from.
        """
        episodes = [episode for episode in lab.episodes if not episode.infrastructure]
        if not episodes:
            raise NothingToLearn(f"none of {len(lab.episodes)} sessions was judged; see their errors in the report")
        book = self.beginning(skill)
        changes = operations(book, episodes, self.support)
        after = pruned(apply(book, changes), count=self.count, characters=self.characters, harm=self.harm)
        text = after.render()
        found = Counter(operation.change for operation in changes)
        counts = {change.value: found[change] for change in Change}
        pruned_away = len(book.bullets) + found[Change.ADD] - len(after.bullets)
        lab.note({"playbook": text, **counts, "bullets": len(after.bullets), "pruned": pruned_away})
        lab.note({"examples": len(episodes), "tasks": len({episode.task for episode in episodes})})
        if text:
            about = f"What {len(episodes)} past sessions taught about fixing bugs in these repositories."
            write_skill(lab.out(f"playbook-{digest_of(text)[:12]}"), SkillFile(name=NAME, description=about, body=text))
        return skill.model_copy(update={"playbook": text})
