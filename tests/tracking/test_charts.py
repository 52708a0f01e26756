"""What charts show of a run's events: tallies, curves, tables, and the trackers' files read back."""

import importlib.util
import json
import struct
import subprocess
import sys

import pytest

from looper.errors import ConfigError
from looper.tracking.guarded import Guarded
from looper.tracking.jsonl import Jsonl
from looper.tracking.ledger import COLUMNS, Ledger, curves, markdown, matrix_rows, place_of, scalars
from looper.tracking.tensorboard_log import TensorBoard
from looper.tracking.weights_and_biases import Mode, WeightsAndBiases

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard"
)


def session(n, resolved, phase="probe (base)"):
    facts = {"digest": f"d{n}", "exit": "done", "steps": 2 + n, "seconds": 0.5}
    return {"phase": phase, "task": f"t{n}", "resolved": {f"t{n}": resolved}, **facts}


START = {"run": "pilot-0123456789", "seed": 1, "config": {"model": {"_target_": "looper.models.nano.model.Nano"}}}
CONSOLIDATED = {
    "arm": "adapted",
    "world": "A",
    "stage": 1,
    "examples": 7,
    "train_loss": 0.5,
    "history": [{"epoch": 1.0, "train_loss": 0.9}, {"epoch": 2.0, "train_loss": 0.5}],
}
METRICS = {
    "resolve_rate": {"base": {"estimate": 0.5, "n": 2}},
    "matrix": [[0.5, None], [0.75, 0.25]],
    "verdict": {"finding": "helped", "sentence": "It helped.", "caveats": ["Few tasks."]},
    "tasks": {"base": {"t0": 1.0}},
}


def told(tracker):
    tracker.event("start", START)
    tracker.event("session", session(0, True))
    tracker.event("session", session(1, False))
    tracker.event("consolidated", CONSOLIDATED)
    tracker.finish(METRICS)
    tracker.finish(METRICS)  # the second time does nothing


def test_the_ledger_counts_episodes_and_rates_by_phase():
    ledger = Ledger()
    assert ledger.add(session(0, True))["probe_base/resolve_rate_so_far"] == 1.0
    assert ledger.add(session(1, False))["probe_base/resolve_rate_so_far"] == 0.5
    assert ledger.add(session(2, True, "work (adapted)"))["work_adapted/resolve_rate_so_far"] == 1.0
    two = session(3, True) | {"resolved": {"a": True, "b": False}}  # one session, judged in two worlds
    assert ledger.add(two)["probe_base/resolve_rate_so_far"] == 0.5
    assert len(ledger.rows) == 5 and ledger.rows[0] == ("probe (base)", "t0", True, "done", 2, 0.5, "d0")


def test_numbers_are_found_by_path_and_nothing_else_is():
    data = {"a": {"b": 1, "c": None}, "d": "text", "e": True, "f": [1], "g": 2.5}
    assert scalars(data, "x/") == {"x/a/b": 1.0, "x/g": 2.5}
    assert place_of(CONSOLIDATED) == "learning/adapted/world_A/stage_1"
    assert list(curves(CONSOLIDATED)) == [(1.0, {"train_loss": 0.9}), (2.0, {"train_loss": 0.5})]
    columns, rows = matrix_rows(METRICS)
    assert columns == ["after", "on stage 1", "on stage 2"]
    assert rows == [["base", 0.5, None], ["stage 1", 0.75, 0.25]]
    assert markdown(columns, rows).splitlines()[2] == "| base | 0.5 |  |"


def datastore(folder):
    """All records of an offline run: the library's own messages in a log of blocks of 32 KiB (LevelDB's format)."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, whole, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little left of the block for a header
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(whole))
            whole = b""
    return records


def summary_of(records):
    updates = [i for r in records if r.WhichOneof("record_type") == "summary" for i in r.summary.update]
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in updates}


def told_to_wandb(folder, *names):
    """Two runs in one process of its own, as in a sweep: the library keeps threads and a service."""
    script = (
        "import sys, pathlib; from tests.tracking.test_charts import told, CONSOLIDATED, START\n"
        "from looper.tracking.weights_and_biases import WeightsAndBiases\n"
        "for name in sys.argv[1:]:\n"
        "    CONSOLIDATED['adapters'] = [str(pathlib.Path(name).parent / 'adapter')]\n"
        "    told(WeightsAndBiases(tags=['grid']).open(pathlib.Path(name)))\n"
        "broken = WeightsAndBiases().open(pathlib.Path(name).with_name('broken'))\n"
        "broken.event('failed', {'error': 'KeyboardInterrupt'})\n"
        "broken.finish({})\n"
    )
    places = [str(folder / name) for name in names]
    done = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]


@needs_wandb
def test_wandb_keeps_two_runs_of_one_process_apart_offline(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    told_to_wandb(tmp_path, "pilot-aa", "pilot-bb")
    for name in ("pilot-aa", "pilot-bb"):
        records = datastore(tmp_path / name)
        (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
        assert (run.run_id, run.run_group, run.project) == (name, "pilot", "looper")
        assert "grid" in run.tags
        kinds = [r.WhichOneof("record_type") for r in records]
        assert kinds.count("exit") == 1 and "artifact" in kinds
        assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]
        rows = [r.history for r in records if r.WhichOneof("record_type") == "history"]
        items = [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row.item} for row in rows]
        curve = [i["learning/adapted/world_A/stage_1/train_loss"] for i in items if "epoch" in i]
        assert curve == [0.9, 0.5]
        assert [i["probe_base/resolve_rate_so_far"] for i in items if "sessions" in i] == [1.0, 0.5]
        assert any((tmp_path / name / "wandb" / "staging").rglob("*")), "nothing is staged elsewhere"
        (table,) = [path for path in (tmp_path / name).rglob("episodes*.table.json")]
        assert json.loads(table.read_text())["columns"] == list(COLUMNS)
        summary = summary_of(records)
        assert summary["resolve_rate/base/estimate"] == 0.5 and summary["verdict/finding"] == "helped"
    records = datastore(tmp_path / "broken")
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [1]
    assert summary_of(records)["error"] == "KeyboardInterrupt"


@needs_tensorboard
def test_tensorboard_files_hold_curves_and_tables(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told(TensorBoard().open(tmp_path))
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    losses = found.Scalars("learning/adapted/world_A/stage_1/train_loss")
    assert [(e.step, round(e.value, 6)) for e in losses] == [(1, 0.9), (2, 0.5)]
    assert [e.value for e in found.Scalars("probe_base/resolve_rate_so_far")] == [1.0, 0.5]
    assert found.Scalars("result/resolve_rate/base/estimate")[0].value == 0.5
    texts = found.Tags()["tensors"]
    assert {f"{name}/text_summary" for name in ("start", "episodes", "matrix", "verdict")} <= set(texts)
    table = found.Tensors("episodes/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "t0" in table and "t1" in table


@needs_tensorboard
def test_a_tracker_that_fails_leaves_the_run_alone(tmp_path, capsys):
    guarded = Guarded(board=TensorBoard().open(tmp_path), good=Jsonl().open(tmp_path))
    guarded.event("session", {"phase": "probe"})  # an event without what a chart needs
    guarded.event("session", session(0, True))
    guarded.finish(METRICS)
    assert capsys.readouterr().err.count("tracker board failed") == 1
    assert guarded.notes == ("The record of tracker board has gaps: KeyError: 'resolved'",)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 3


def test_wrong_values_are_named():
    with pytest.raises(ConfigError, match="no W&B project"):
        WeightsAndBiases(project="a/b")
    with pytest.raises(ConfigError, match="tag"):
        WeightsAndBiases(tags=[""])
    with pytest.raises(ConfigError, match="not a plain name"):
        TensorBoard(folder="a/b")
    with pytest.raises(ConfigError, match="flush_seconds=0"):
        TensorBoard(flush_seconds=0)
    assert WeightsAndBiases().mode is Mode.offline
