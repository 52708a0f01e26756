"""How sessions end, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from looper.agents.loop import Budget
from looper.agents.prompt import Prompt
from looper.errors import ContextOverflow
from looper.protocols import Box
from looper.records import Conversation, Exit, Source
from looper.workspaces.local import LocalWorkspace
from tests.agents.scripted import play

FILES = {"a.py": "x = 1\n"}
WRITE = '<write path="a.py">\nx = 2\n</write>'


@pytest.fixture
def box() -> Iterator[Box]:
    with LocalWorkspace().open(Source(name="r", files=FILES)) as opened:
        yield opened


def test_done_ends_with_the_patch(box: Box) -> None:
    t, _ = play(box, [WRITE, "<done/>"], Prompt())
    assert t.exit is Exit.DONE
    assert "+x = 2" in t.patch
    assert [m.role for m in t.messages] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("replies", "budget", "exit_"),
    [
        ([WRITE, "<read>a.py:1-1</read>"], {"steps": 2}, Exit.STEPS),
        ([WRITE, "<bash>true</bash>"], {"tokens": 12}, Exit.TOKENS),
        ([WRITE, "no call at all"], {}, Exit.FORMAT),
        ([WRITE, "<bash>sleep 0.3</bash>"], {"seconds": 0.2}, Exit.SECONDS),
    ],
)
def test_whatever_the_exit_the_patch_is_taken(
    box: Box, replies: list[str], budget: dict[str, float], exit_: Exit
) -> None:
    t, _ = play(box, replies, Prompt(), **budget)
    assert t.exit is exit_
    assert "+x = 2" in t.patch


def test_format_errors_are_explained_and_forgiven(box: Box) -> None:
    t, _ = play(box, ["hm", "hm", WRITE, "hm", "<done/>"], Prompt())
    assert t.exit is Exit.DONE
    assert t.steps[0].observation.startswith("Format error: no tool call found")
    assert [s.action for s in t.steps] == ["format", "format", "write", "format", "done"]


def test_only_the_first_of_two_calls_is_run(box: Box) -> None:
    t, _ = play(box, ["<bash>echo one</bash><bash>echo two</bash>", "<done/>"], Prompt())
    assert t.steps[0].observation == "one\n[only the first of 2 tool calls was run]"


def test_what_goes_wrong_inside_is_an_observation(box: Box) -> None:
    asks = ["<read>nope.py</read>", "<read>../../etc/passwd</read>", "<read>.</read>", "<bash>exit 3</bash>", "<done/>"]
    t, _ = play(box, asks, Prompt())
    seen = [s.observation for s in t.steps]
    assert "no such file: nope.py" in seen[0]
    assert seen[1].startswith("Error:")
    assert "root:" not in seen[1]
    assert "folder" in seen[2]
    assert seen[3] == "[exit code 3]"
    assert t.exit is Exit.DONE


def test_a_file_that_stops_parsing_is_reported(box: Box) -> None:
    t, _ = play(box, ['<edit path="a.py">\nx = 1\n=======\nx = (\n</edit>', "<done/>"], Prompt())
    assert "no longer parses: line 1" in t.steps[0].observation


def test_a_conversation_too_long_for_the_model_ends_by_tokens(box: Box) -> None:
    def full(conversation: Conversation, turn: int) -> str:
        if turn == 1:
            raise ContextOverflow("too long")
        return WRITE

    t, _ = play(box, full, Prompt())
    assert (t.exit, len(t.steps)) == (Exit.TOKENS, 1)
    assert "+x = 2" in t.patch


def test_each_reply_has_a_random_stream_of_its_own(box: Box) -> None:
    _, model = play(box, ["<read>a.py:1-1</read>", WRITE, "<done/>"], Prompt())
    assert len({c.seed for c in model.shown}) == 3
    again = play(box, ["<read>a.py:1-1</read>", WRITE, "<done/>"], Prompt())[1]
    assert [c.seed for c in again.shown] == [c.seed for c in model.shown]


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"budget\.steps must be positive, not 0"):
        Budget(steps=0)
