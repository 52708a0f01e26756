"""A supervisor approves, rejects or corrects each step; what was taken, and how often it stepped in, is on record."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.errors import ContextOverflow
from looper.metrics.outcomes import Outcome
from looper.metrics.usage import usage
from looper.models.supervised import Supervised, read
from looper.pretraining.box import MemoryBox
from looper.protocols import Model
from looper.records import Conversation, Episode, Intervention, Recall, Reply, Skill, Source, Task, Tests, Verdict


class Scripted:
    """Says given lines in turn, and keeps what it was asked."""

    weights = None
    knows_protocol = True

    def __init__(self, name: str, *lines: str) -> None:
        self.id = name
        self.lines = list(lines)
        self.asked: list[Conversation] = []

    def tokens(self, text: str) -> int:
        return len(text)

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        self.asked += conversations
        return [Reply(text=self.lines.pop(0), prompt_tokens=10, completion_tokens=2) for _ in conversations]

    def with_skill(self, skill: Skill) -> Model:
        return self

    def forget(self, conversation: str) -> None:
        self.asked = [c for c in self.asked if c.id != conversation]


GREP = '<bash>git grep -n "def f"</bash>'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Fine. <approve/>", (Intervention.APPROVED, "")),
        ("<reject>read first\n</reject>", (Intervention.REJECTED, "read first")),
        (f"<correct>{GREP}</correct>", (Intervention.CORRECTED, GREP)),
        ("<correct>look around</correct>", (Intervention.UNCLEAR, "")),
        ("yes", (Intervention.UNCLEAR, "")),
        ("", (Intervention.UNCLEAR, "")),
    ],
)
def test_answers_are_read(answer: str, expected: tuple[Intervention, str]) -> None:
    assert read(answer) == expected


def session(model: Model) -> Episode:
    task = Task(id="t", family="f", issue="`f` is wrong", source=Source(name="s"), tests=Tests())
    agent = Agent(prompt=Prompt(), budget=Budget())
    box = MemoryBox({"a.py": "def f():\n    return 1\n"})
    trajectory = agent.run(task, box, model, recall=Recall(), skill=Skill(), digest="d")
    return Episode(digest="e", task="t", family="f", pair="", trajectory=trajectory, verdict=Verdict(resolved=False))


def test_a_session_takes_what_the_supervisor_lets_pass() -> None:
    agent = Scripted("agent", GREP, "<read>b.py</read>", "<read>a.py</read>", "<done/>", "<done/>")
    fix = '<edit path="a.py">\n    return 1\n=======\n    return 2\n</edit>'
    boss = Scripted(
        "boss", "<approve/>", "<reject>there is no b.py</reject>", f"<correct>{fix}</correct>", "no opinion"
    )
    episode = session(Supervised(model=agent, supervisor=boss))
    steps = episode.trajectory.steps
    assert [s.reply for s in steps] == [GREP, "<read>a.py</read>", fix, "<done/>"]
    assert [s.intervention for s in steps] == ["approved", "rejected", "corrected", "unclear"]
    assert [s.prompt_tokens for s in steps] == [20, 30, 20, 20]
    assert "return 2" in episode.trajectory.patch
    told = "\n".join(m.content for m in episode.trajectory.messages)
    assert "there is no b.py" not in told and "b.py" not in told

    outcome = Outcome.of(episode, arm="train", stage=0)
    assert usage([outcome])["intervention_rate"] == 0.5


def test_the_supervisor_sees_the_step_and_the_agent_the_reason() -> None:
    agent = Scripted("agent", "<done/>", "<done/>")
    boss = Scripted("boss", "<reject>nothing is fixed</reject>")
    model = Supervised(model=agent, supervisor=boss)
    asked, retried = [], []
    forget = boss.forget
    boss.forget = lambda c: (asked.extend(boss.asked), forget(c))  # type: ignore[method-assign,assignment,func-returns-value]
    agent.forget = lambda c: retried.extend(agent.asked)  # type: ignore[method-assign,assignment]
    session(model)
    assert "wants to answer:\n<done/>" in asked[0].messages[-1].content
    assert "`f` is wrong" in asked[0].messages[-1].content
    assert "nothing is fixed" in retried[-1].messages[-1].content
    assert model.id == "agent supervised by boss"
    assert not boss.asked, "what the supervisor held of the session is freed"


def test_a_session_too_long_for_the_supervisor_goes_on_without_it() -> None:
    class Short(Scripted):
        def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
            if any("long" in c.id for c in conversations):
                raise ContextOverflow("too long")
            return super().reply(conversations)

    agent, boss = Scripted("agent", "1", "2", "3"), Short("boss", "<approve/>", "<approve/>")
    batch = [Conversation(id=name, messages=(), max_tokens=9) for name in ("a", "long", "b")]
    replies = Supervised(model=agent, supervisor=boss).reply(batch)
    assert [r.text for r in replies] == ["1", "2", "3"] and not agent.lines
    assert [r.intervention for r in replies] == ["approved", "unclear", "approved"]


def test_the_price_of_a_session_is_both_models_and_unknown_where_one_is() -> None:
    class Paid(Scripted):
        cost: float | None = 0.5

        def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
            return [r.model_copy(update={"metered": True, "cost": self.cost}) for r in super().reply(conversations)]

    def told(boss: Paid) -> Outcome:
        episode = session(Supervised(model=Scripted("agent", GREP, "<done/>"), supervisor=boss))
        return Outcome.of(episode, arm="train", stage=0)

    known, unknown = Paid("boss", "<approve/>", "<approve/>"), Paid("boss", "<approve/>", "<approve/>")
    unknown.cost = None
    assert usage([told(known)])["served"] == {"prompt_tokens": 40, "completion_tokens": 8, "cost": 1.0}
    assert usage([told(unknown)])["served"]["cost"] is None
    assert usage([Outcome.of(session(Scripted("a", "<done/>")), arm="train", stage=0)])["served"] is None


def test_sessions_without_a_supervisor_have_no_rate() -> None:
    episode = session(Scripted("agent", "<done/>"))
    assert usage([Outcome.of(episode, arm="train", stage=0)])["intervention_rate"] is None
