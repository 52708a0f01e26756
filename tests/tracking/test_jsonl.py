import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from looper.errors import ConfigError, StoreError
from looper.records import Exit, Message
from looper.tracking.guarded import Guarded
from looper.tracking.jsonl import Jsonl


def lines(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_events_are_lines_with_time_kind_and_data(tmp_path):
    session = Jsonl().open(tmp_path / "run")
    session.event(
        "session", {"task": "t\n1", "exit": Exit.DONE, "at": Path("a"), "message": Message(role="user", content="é")}
    )
    session.finish({"resolve_rate": {"base": None}})
    session.finish({})
    first, second = lines(tmp_path / "run")
    assert first["data"] == {"task": "t\n1", "exit": "done", "at": "a", "message": {"role": "user", "content": "é"}}
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert (second["kind"], second["data"]) == ("metrics", {"resolve_rate": {"base": None}})
    with pytest.raises(StoreError, match="was finished"):
        session.event("late", {})


def test_a_line_cut_by_a_kill_spoils_nothing_that_follows(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"kind": "whole"}\n{"kind": "cu')
    session = Jsonl().open(tmp_path)
    session.event("next", {})
    session.finish({})
    written = (tmp_path / "events.jsonl").read_text().splitlines()
    assert written[1] == '{"kind": "cu'
    assert [json.loads(line)["kind"] for line in written[2:]] == ["next", "metrics"]


def test_numbers_that_json_lacks_become_text(tmp_path):
    session = Jsonl().open(tmp_path)
    session.event("loss", {"loss": float("nan"), "ranks": (1, float("inf")), "names": {"b", "a"}})
    assert lines(tmp_path)[0]["data"] == {"loss": "nan", "ranks": [1, "inf"], "names": ["a", "b"]}
    session.finish({})


def test_writers_at_the_same_time_do_not_mix_lines(tmp_path):
    sessions = [Jsonl().open(tmp_path) for _ in range(4)]

    def write(i):
        for n in range(50):
            sessions[i].event("tick", {"writer": i, "n": n, "text": "x" * 3000})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for session in sessions:
        session.finish({})
    assert len(lines(tmp_path)) == 204


def test_a_name_that_is_a_path_is_refused():
    with pytest.raises(ConfigError, match="not a plain file name"):
        Jsonl(file="../events.jsonl")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot open"):
        Jsonl().open(tmp_path / "file")


@pytest.fixture
def full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "events.jsonl").symlink_to("/dev/full")
    return tmp_path / "full"


def test_a_full_disk_fails_the_tracker_but_not_the_run(full_disk, tmp_path, capsys):
    with pytest.raises(StoreError, match="cannot write"):
        Jsonl().open(full_disk).event("x", {})
    guarded = Guarded(disk=Jsonl().open(full_disk), good=Jsonl().open(tmp_path))
    guarded.event("a", {})
    guarded.event("b", {"n": 1})
    guarded.finish({})
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("tracker disk failed")
    assert guarded.failed == {"disk"}
    assert [line["kind"] for line in lines(tmp_path)] == ["a", "b", "metrics"]
