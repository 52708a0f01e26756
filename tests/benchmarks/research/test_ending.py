"""What a run leaves in its box is read as what anybody may have written there."""

from __future__ import annotations

import os

import pytest

from looper.benchmarks.nanochat.outside import Outside
from looper.benchmarks.research.ending import report_in, weights_in
from looper.benchmarks.research.measurement import Measurement
from looper.records import Source


def read(text: str) -> dict[str, object]:
    with Outside().open(Source(name="run", files={".judge/report.json": text})) as box:
        return report_in(box)


@pytest.mark.parametrize(
    "text", ["", "[1]", "[" * 60_000, '{"cheat": "score"}', '{"cheat": "none", "reason": "x"}', '{"cheat": 3}', "\x00"]
)
def test_what_is_no_report_is_none(text: str) -> None:
    assert read(text) == {}


@pytest.mark.parametrize("value", ["-1", "1e400", "NaN", str(10**30), '"7"', "null"])
def test_counts_that_no_run_has_are_left_out(value: str) -> None:
    assert read(f'{{"steps": {value}, "train_seconds": {value}, "tokens": 5}}') == {"tokens": 5}


def test_every_text_can_be_stored() -> None:
    found = read('{"error": "it said \\ud800"}')
    assert found == {"error": "it said \\ud800"}
    assert Measurement(status="crash", reason=str(found["error"])).model_dump_json()


def test_weights_that_are_no_file_are_none_or_said() -> None:
    with Outside().open(Source(name="run", files={"x": ""})) as box:
        room = box.root / ".judge"
        assert weights_in(box, 10) == (b"", {})
        room.mkdir()
        (room / "model.pt").symlink_to("model.pt")
        assert "cannot be read" in weights_in(box, 10)[1]["error"]
        (room / "model.pt").unlink()
        os.mkfifo(room / "model.pt")
        assert "no regular file" in weights_in(box, 10)[1]["error"]
        (room / "model.pt").unlink()
        room.rmdir()
        room.write_text("a file")
        assert weights_in(box, 10) == (b"", {})
