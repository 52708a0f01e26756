"""Answers to questions that are asked once are kept as they come: a kill loses what was under way, and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from looper.answers import Kept
from looper.errors import ContextOverflow, MachineError, ModelError
from looper.models.replay import Replay, record
from looper.records import Message
from looper.store import Store
from tests.models.loopback import asking, serving
from tests.models.test_http import CHAT, completion, echo, model_at

ASK = """
import sys
from pathlib import Path
from looper.answers import Kept
from looper.models.http_model import HttpModel
from looper.store import Store
from tests.models.loopback import asking

model = HttpModel(base_url=sys.argv[1], name="m", concurrency=1)
print(*(r.text for r in Kept(model, Store(Path(sys.argv[2]))).reply([asking(f"q{i}") for i in range(6)])))
"""


def asked(server: Any) -> list[str]:
    """Return the questions that reached the server, in order."""
    return [body["messages"][-1]["content"] for path, body, _ in server.requests if path == CHAT]


def test_a_killed_process_goes_on_and_no_finished_answer_is_asked_for_twice(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[str]] = []

    def script(method: str, path: str, body: Any) -> Any:
        if body["messages"][-1]["content"] == "q4" and len(processes) == 1:
            os.kill(processes[0].pid, signal.SIGKILL)
        return echo(method, path, body)

    with serving(script) as server:
        command = [sys.executable, "-c", ASK, f"{server.url}/v1", str(tmp_path)]
        for _ in range(2):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            out, _ = process.communicate(timeout=100)
        assert processes[0].returncode == -signal.SIGKILL
        assert out.split() == ["Q0", "Q1", "Q2", "Q3", "Q4", "Q5"]
        assert asked(server) == ["q0", "q1", "q2", "q3", "q4", "q4", "q5"]


def test_everything_that_is_asked_is_in_the_address_and_who_asks_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with serving(echo) as server:
        Kept(model_at(server), store).reply([asking("x", id="a"), asking("x", id="b")])
        assert asked(server) == ["x"]
        for more in ({"seed": 2}, {"temperature": 0.5}, {"max_tokens": 9}):
            Kept(model_at(server), store).reply([asking("x", **more)])
        Kept(model_at(server, extra={"top_p": 0.5}), store).reply([asking("x")])
        assert len(asked(server)) == 5


def test_what_fails_is_raised_when_the_rest_is_kept(tmp_path: Path) -> None:
    def script(method: str, path: str, body: Any) -> Any:
        if body["messages"][-1]["content"] == "long":
            return 400, {"error": {"message": "maximum context length", "code": "context_length_exceeded"}}
        return 200, completion("good")

    with serving(script) as server:
        model = Kept(model_at(server), Store(tmp_path))
        with pytest.raises(ContextOverflow):
            model.reply([asking("long"), asking("a"), asking("b")])
        assert [r.text for r in model.reply([asking("a"), asking("b")])] == ["good", "good"]
        assert sorted(asked(server)) == ["a", "b", "long"]


def test_a_server_that_nobody_reaches_is_not_asked_for_the_rest(tmp_path: Path) -> None:
    with serving(lambda *_: (401, {"error": {"message": "no such key"}})) as server:
        model = Kept(model_at(server, concurrency=1), Store(tmp_path))
        with pytest.raises(MachineError, match="refuses the key"):
            model.reply([asking(f"q{i}") for i in range(50)])
        assert len(asked(server)) < 50


def test_a_local_model_answers_in_batches_and_is_the_same_model_otherwise(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Local(Replay):
        def reply(self, conversations: Any) -> Any:
            sizes.append(len(conversations))
            return super().reply(conversations)

    questions = [asking(f"q{i}") for i in range(20)]
    told = [(*q.messages, Message(role="assistant", content=q.messages[-1].content.upper())) for q in questions]
    record(tmp_path / "r.jsonl", told)
    local = Local(path=str(tmp_path / "r.jsonl"))
    kept = Kept(local, Store(tmp_path / "store"))
    assert [r.text for r in kept.reply(questions)] == [f"Q{i}" for i in range(20)]
    assert sizes == [16, 4] and kept.reply([]) == []
    assert (kept.id, kept.knows_protocol, kept.weights) == (local.id, local.knows_protocol, None)
    assert kept.tokens("a b") == local.tokens("a b")
    kept.forget("q0")
    with pytest.raises(ModelError):
        kept.reply([asking("never recorded")])
