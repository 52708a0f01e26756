"""A control: the same sessions with the agent's turns dealt out anew, so that what they say does not fit the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from looper.actions import parse
from looper.errors import NothingToLearn
from looper.learning.sft import Sft
from looper.protocols import Lab
from looper.records import Example, Skill


def dealt(examples: Sequence[Example], seed: int) -> tuple[list[Example], int]:
    """Return as many examples with their weighted turns exchanged, and how many turns could not leave their task.

    A turn takes the place of one of the same kind (bash, read, edit ...), so that sessions keep their form; every turn
    goes to another task unless one task holds more than half of a kind. Number and weights of turns stay as they are.
    """
    random = Random(f"dealt/{seed}")
    places: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for i, example in enumerate(examples):
        for j, (message, weight) in enumerate(zip(example.messages, example.weights, strict=True)):
            if weight:
                places.setdefault(parse(message.content).kind, {}).setdefault(example.task, []).append((i, j))
    texts: dict[tuple[int, int], str] = {}
    stayed = 0
    for _, by_task in sorted(places.items()):
        tasks = sorted(by_task)
        random.shuffle(tasks)
        line: list[tuple[int, int]] = []
        for task in tasks:
            line += random.sample(by_task[task], len(by_task[task]))
        # Moved on by the largest task's number of turns, nobody meets a turn of the own task.
        far = max(Counter(examples[i].task for i, _ in line).values())
        for at, (i, j) in enumerate(line):
            source, turn = line[(at + far) % len(line)]
            texts[i, j] = examples[source].messages[turn].content
            stayed += examples[source].task == examples[i].task
    out = []
    for i, example in enumerate(examples):
        messages = tuple(
            m.model_copy(update={"content": texts[i, j]}) if (i, j) in texts else m
            for j, m in enumerate(example.messages)
        )
        out.append(example.model_copy(update={"messages": messages}))
    return out, stayed


@dataclass(frozen=True, kw_only=True)
class RandomTrajectory(Sft):
    """Plain fine-tuning on sessions whose turns belong to other tasks.

    What this adapter gains comes from the form of sessions and from being trained at all, not from their content.
    """

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill trained on shuffled turns. Raises NothingToLearn for fewer than two tasks."""
        tasks = len({example.task for example in examples})
        if tasks < 2:
            raise NothingToLearn(f"{tasks} tasks with usable examples; turns are exchanged between at least 2")
        shuffled, stayed = dealt(examples, lab.seed)
        turns = sum(bool(weight) for example in shuffled for weight in example.weights)
        lab.note({"shuffled_turns": turns, "turns_of_own_task": stayed})
        return super().learn(skill, shuffled, lab)
