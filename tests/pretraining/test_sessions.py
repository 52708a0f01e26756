"""Oracle sessions: solved, the same in memory and in a real sandbox, and apart from what is evaluated."""

from __future__ import annotations

import json
from random import Random

import pytest

from looper.actions import FormatError, parse
from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import EVALUATION, FRESH, Bugs, FamilyKind
from looper.benchmarks.bugs.draw import draw
from looper.benchmarks.bugs.family import mix_family, two_copy_mix_family
from looper.chat import render, spans
from looper.errors import WorkspaceError
from looper.models.nano.model import PACKED
from looper.pretraining.box import TEST_COMMAND, MemoryBox
from looper.pretraining.oracle import Oracle
from looper.pretraining.recipe import language_digest
from looper.pretraining.sessions import Mix, OracleSession, oracle_session
from looper.records import Recall, Skill
from looper.workspaces.local import LocalWorkspace


@pytest.fixture(scope="module")
def sessions() -> list[OracleSession]:
    return [oracle_session(i, 11, Mix()) for i in range(300)]


def test_a_session_is_a_pure_function_of_its_number() -> None:
    assert oracle_session(7, 11, Mix()) == oracle_session(7, 11, Mix())
    assert oracle_session(7, 11, Mix()) != oracle_session(7, 12, Mix())


def test_weighted_turns_are_actions_and_wrong_turns_carry_no_loss(sessions: list[OracleSession]) -> None:
    masked = 0
    for session in sessions:
        for message, weight in zip(session.messages, session.weights, strict=True):
            if message.role == "assistant" and weight:
                assert not isinstance(parse(message.content), FormatError)
            masked += message.role == "assistant" and not weight
        joined = "".join(span.text for span in spans(session.messages, session.weights))
        assert joined == render(session.messages)
    assert masked > 10


def test_the_mix_shows_every_situation(sessions: list[OracleSession]) -> None:
    texts = [render(s.messages) for s in sessions]
    for mark in (
        "Notes from past sessions",
        "Format error",
        "no such file",
        "unittest",
        "FAILED",
        "<write",
        "Read whole",
    ):
        assert any(mark in text for text in texts), mark
    assert 0.15 < sum("Notes from past" in text for text in texts) / len(texts) < 0.35


@pytest.mark.parametrize("number", range(16))
def test_memory_and_sandbox_show_the_same(number: int, workspace: LocalWorkspace) -> None:
    drawn = draw(two_copy_mix_family(number) if number % 4 == 0 else mix_family(number), number)
    prompt = Prompt(skip_verification=False, line_ranges=number % 2 == 0, edit_tool=number % 5 != 0)
    agent = Agent(prompt=prompt, budget=Budget())

    def play(box: object) -> object:
        oracle = Oracle(drawn.bug, prompt, Random(f"{number}"))
        return agent.run(drawn.task, box, oracle, recall=Recall(), skill=Skill(), digest="d").messages  # type: ignore[arg-type]

    with workspace.open(drawn.task.source) as box:
        assert play(box) == play(MemoryBox(drawn.task.source.files))


@pytest.fixture(scope="module")
def workspace() -> LocalWorkspace:
    return LocalWorkspace()


def test_the_box_in_memory_refuses_what_it_cannot_do() -> None:
    with pytest.raises(WorkspaceError, match="cannot run 'ls'"):
        MemoryBox({"a.py": ""}).run("ls", seconds=1)
    assert MemoryBox({"tests/__init__.py": ""}).run(TEST_COMMAND, seconds=1).output


def test_no_evaluated_task_is_in_reach_of_the_mix(sessions: list[OracleSession]) -> None:
    mix = Mix()
    assert mix.indexes <= EVALUATION
    assert mix.families <= FRESH
    seen = {s.messages[1].content for s in sessions}
    words = set("\n".join(render(s.messages) for s in sessions).replace("/", " ").split())
    for kind in FamilyKind:
        for task in Bugs(family=kind, size=20, probes=[]).load(1):
            assert not any(task.issue in text for text in seen)
    for tree in Bugs().trees:
        assert tree not in words


def test_the_packed_model_was_trained_on_what_the_code_says_today() -> None:
    card = json.loads((PACKED / "card.json").read_text())
    assert language_digest(card["recipe"]["seed"]) == card["language"], (
        "prompts, tools, notes, chat template or generator changed: the bundled model must be trained again"
    )
