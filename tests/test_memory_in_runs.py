"""Whole runs with a memory, on recorded sessions: what it holds, and what another option or an interruption changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from looper.chat import first_message
from looper.config import read
from looper.launch import launch
from looper.memory import sessions
from looper.memory.knowledge import FILE
from looper.memory.store import MemoryStore
from looper.models.replay import Replay, key_of
from looper.records import Conversation, Recall, Reply
from tests.recordings import OVERRIDES, write_recording
from tests.test_config import composed
from tests.test_run import timeless


@dataclass(frozen=True, kw_only=True)
class Deaf(Replay):
    """Plays a recording whatever notes it is shown, and gives up where nothing was recorded."""

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Conversation) -> Reply:
        messages = list(conversation.messages)
        _, mark, issue = messages[1].content.partition("\nIssue: ")
        if mark:
            messages[1] = messages[1].model_copy(update={"content": first_message(issue, Recall())})
        if key_of(messages) not in self._rows:
            return Reply(text="<done/>")
        return super().reply([conversation.model_copy(update={"messages": tuple(messages)})])[0]


def metrics_of(out: Path, recording: Path, retrieval: str) -> dict[str, Any]:
    """Run, or show a finished run; return its metrics."""
    overrides = [*OVERRIDES, f"model.path={recording}", f"retrieval={retrieval}", f"out={out}", "placebo=true"]
    experiment = read(composed(*overrides))
    parts = {**experiment.parts, "model": Deaf(path=str(recording))}
    return launch(dataclasses.replace(experiment, parts=parts), overrides=overrides)


def entries_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "replies.jsonl"
    write_recording(path, wrong=1)
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Path:
    path = tmp_path_factory.mktemp("out")
    for retrieval in ("none", "fts"):
        metrics_of(path, recording, retrieval)
    return path


@pytest.fixture(scope="module")
def remembering(out: Path) -> Path:
    """The folder of the run that has a memory."""
    (folder,) = [path for path in (out / "runs").iterdir() if (path / "memory").exists()]
    return folder


def test_held_out_tasks_never_reach_a_memory(remembering: Path) -> None:
    entries = entries_of(remembering)
    probed = {entry["task"] for entry in entries if not entry["arm"].endswith("train")}
    paths = sorted((remembering / "memory").glob(f"*/{FILE}"))
    assert [path.parent.name for path in paths] == [
        f"{arm}-{world}" for arm in ("adapted", "base", "placebo") for world in "AB"
    ]
    for path in paths:
        with MemoryStore.open(path, read_only=True) as store:
            held = [session.task for session in sessions.sessions(store)]
            text = "\n".join(store.connection.iterdump())
        arm, _, world = path.parent.name.partition("-")
        worked = [entry["task"] for entry in entries if entry["arm"] == f"{arm} train".removeprefix("adapted ")]
        if arm == "placebo":  # the same work in both worlds, each with a memory of its own
            assert held == worked[: len(worked) // 2] == worked[len(worked) // 2 :] != []
        else:
            assert held == [task for task in worked if f"/{world}/" in task]
            assert bool(held) == (arm == "adapted")
        assert probed and not any(task in text for task in probed)


def test_jobs_share_the_sessions_of_base_and_work(out: Path, remembering: Path) -> None:
    (plain,) = [path for path in (out / "runs").iterdir() if path != remembering]
    first, second = entries_of(plain), entries_of(remembering)
    for arm in ("base", "train"):
        shared = sorted(entry["episode"] for entry in first if entry["arm"] == arm)
        assert shared and shared == sorted(entry["episode"] for entry in second if entry["arm"] == arm)


def test_a_run_that_goes_on_recalls_what_it_recalled_before(out: Path, remembering: Path, recording: Path) -> None:
    before = json.loads((remembering / "metrics.json").read_text())
    events = (remembering / "events.jsonl").read_text()
    (remembering / "metrics.json").unlink()  # as if it was killed at the very end, its memories full
    assert timeless(metrics_of(out, recording, "fts")) == timeless(before)
    assert (remembering / "events.jsonl").read_text().count('"session"') == events.count('"session"') > 0


def test_knowledge_without_training_is_reported_as_such(remembering: Path) -> None:
    metrics = json.loads((remembering / "metrics.json").read_text())
    assert metrics["learning"] == {}
    assert set(metrics["resolve_rate"]) == {"base", "adapted", "placebo"}
    assert metrics["transfer_over_placebo"] is not None
    assert "raining" not in metrics["verdict"]["sentence"]
