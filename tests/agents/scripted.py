"""A model that plays a list of replies, or asks a function for the next one: real code for real loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.protocols import Box
from looper.records import Conversation, Recall, Reply, Skill, Source, Task, Tests, Trajectory


@dataclass
class Scripted:
    """Answers turn by turn; the last reply repeats for ever. Keeps the conversations it was shown."""

    replies: Sequence[str] | Callable[[Conversation, int], str]
    knows_protocol: bool = False
    id: str = "scripted"
    weights: Path | None = None
    shown: list[Conversation] = field(default_factory=list)

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        out = []
        for conversation in conversations:
            turn = sum(m.role == "assistant" for m in conversation.messages)
            self.shown.append(conversation)
            text = (
                self.replies(conversation, turn)
                if callable(self.replies)
                else self.replies[min(turn, len(self.replies) - 1)]
            )
            prompt = sum(len(m.content) // 3 for m in conversation.messages)
            out.append(Reply(text=text, prompt_tokens=prompt, completion_tokens=max(1, len(text) // 3)))
        return out

    def tokens(self, text: str) -> int:
        return len(text) // 3

    def with_skill(self, skill: Skill) -> Scripted:
        return self

    def forget(self, conversation: str) -> None:
        pass


def task(files: dict[str, str], issue: str = "It is broken.") -> Task:
    return Task(id="t", family="f", issue=issue, source=Source(name="repo", files=files), tests=Tests())


def play(box: Box, replies: object, prompt: Prompt, **budget: float) -> tuple[Trajectory, Scripted]:
    model = Scripted(replies)  # type: ignore[arg-type]
    agent = Agent(prompt=prompt, budget=Budget(**budget))  # type: ignore[arg-type]
    trajectory = agent.run(task({}), box, model, recall=Recall(), skill=Skill(), digest="d")
    return trajectory, model
