"""A research task of two lines and a model that proposes to it: campaigns of it take moments."""

from __future__ import annotations

from dataclasses import dataclass

from looper.campaigns.arms import HEADER
from looper.records import Conversation, Reply, Source, Task, Tests
from tests.campaigns.test_study import Scripted, Simulated


@dataclass(frozen=True, kw_only=True)
class Small(Simulated):
    """A program of two lines, and scores drawn instead of trained."""

    def files(self) -> dict[str, str]:
        return {"prepare.py": "SEED = 1\n", "program.md": "Improve train.py.\n", "train.py": "LR = 0.003\nDEPTH = 2\n"}

    def task(self, train: str, *, id: str) -> Task:
        source = Source(name="research", files=self.files() | {"train.py": train})
        return Task(id=id, family="research", issue=self.goal, source=source, tests=Tests())


class Writing(Scripted):
    """Proposes another program in every trial: it reads the table of results to know which one it is."""

    def __init__(self) -> None:
        super().__init__(str)

    def reply(self, conversations: list[Conversation]) -> list[Reply]:
        asked = conversations[0].messages[1].content
        number = 1 + asked.rpartition(HEADER)[2].count("lower it")
        program = f"LR = 0.00{number}\nDEPTH = 2\n"
        first = sum(message.role == "assistant" for message in conversations[0].messages) == 0
        write = f'<write path="train.py">\n{program}</write>'
        return [Reply(text=write if first else "<think>lower it</think><done/>")]
