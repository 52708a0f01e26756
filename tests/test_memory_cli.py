from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from looper.errors import ConfigError, LooperError, StoreError
from looper.memory_cli import app
from tests.memory.bundled_train import TRAIN, with_method

README = Path(__file__).parents[1] / "README.md"
WHERE = ["--scope", "cpu", "--campaign", "c", "--budget-kind", "tokens", "--budget", "1000"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "better.py").write_text(with_method("swiglu"))
    return tmp_path


def call(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper.cli", "memory", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_campaign_from_the_command_line(here: Path) -> None:
    assert "methods" in call("init")
    (here / "paper.md").write_text("# Gated units\n\nA gate multiplies the hidden channels.\n")
    assert "added" in call("ingest", "paper.md") and "known already" in call("ingest", "paper.md")
    for seed, metric in ((1, 2.50), (2, 2.501)):
        assert "baseline" in call("record", "train.py", "--metric", str(metric), "--seed", str(seed), *WHERE)
    found = json.loads(call("suggest", "improve validation bpb", "--scope", "cpu", "--campaign", "c", "--json"))
    assert found["pack"] and found["tokens"]["brief"] > 0
    assert "# Experiment brief" in call("suggest", "improve validation bpb", "--query", "gated units")
    assert call("propose", "train.py", "better.py", *WHERE).startswith("allow")
    words = ["record", "better.py", "--before", "train.py", "--metric", "2.45", "--seed", "1"]
    logged = json.loads(call(*words, "--retrieval", found["retrieval"], *WHERE, "--json"))
    assert logged["verdict"]["decision"] == "keep" and logged["experiment"]["methods"] == {"swiglu": "present"}
    name = logged["experiment"]["id"]
    assert name in call("log") and json.loads(call("log", "--json"))[-1]["metric"] == 2.45
    assert "verdict: keep" in call("why", name)
    assert "swiglu: 1 tried, 1 kept" in call("stats") and json.loads(call("stats", "--json"))["counts"]["outcome"] == 3
    assert "gate multiplies" in call("search", "gate") and json.loads(call("search", "relu", "--json"))["methods"]
    assert "| ours | 1 |" in call("replay", "--choices", "1", "--resamples", "20", "--sigma", "0.005")
    assert call("check") == "researchfs.db is whole\n"
    assert "keep" in call("export", "--results", "c")
    call("export", "--out", "all.jsonl")
    call("restore", "all.jsonl", "--db", "again.db")
    assert call("export", "--db", "again.db") == (here / "all.jsonl").read_text()


def test_a_known_failure_blocks_with_status_1(here: Path) -> None:
    for seed, metric in ((1, 2.50), (2, 2.51)):
        call("record", "train.py", "--metric", str(metric), "--seed", str(seed), *WHERE)
    call("record", "better.py", "--before", "train.py", "--metric", "2.7", "--seed", "1", *WHERE)
    said = call("propose", "train.py", "better.py", "--seed", "1", *WHERE, code=1)
    assert said.startswith("block") and "reopened by" in said


def test_check_ends_with_1_on_a_damaged_file_and_a_mistake_with_2_and_one_line(here: Path) -> None:
    assert shell(here, "init").returncode == 0
    assert shell(here, "check").returncode == 0
    with sqlite3.connect("researchfs.db") as file:
        file.execute("UPDATE method SET name = 'other' WHERE id = 'swiglu'")
    file.close()
    damaged = shell(here, "check", "--json")
    assert damaged.returncode == 1 and any("swiglu" in line for line in json.loads(damaged.stdout)["problems"])
    missing = shell(here, "search", "x", "--db", "none.db")
    assert missing.returncode == 2 and not (here / "none.db").exists()
    assert missing.stderr.startswith("looper: none.db is not there; make one with") and missing.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["record", "train.py"],
        ["record", "train.py", "--status", "fine"],
        ["suggest", "goal", "--code", "none.py"],
        ["ingest", "no such thing"],
        ["why", "none"],
        ["replay", "none.tsv"],
    ],
)
def test_mistakes_are_the_program_s_own_errors(here: Path, words: list[str]) -> None:
    call("init")
    with pytest.raises(LooperError):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_an_export_never_takes_the_place_of_a_memory_and_is_whole_or_not_there(here: Path) -> None:
    call("init")
    call("init", "--db", "other.db")
    call("record", "train.py", "--metric", "2.5", *WHERE)
    before = (here / "researchfs.db").read_bytes()
    (here / "link.db").symlink_to(here / "researchfs.db")
    for out in ("researchfs.db", "./researchfs.db", "researchfs.db-wal", "other.db", "link.db"):
        for words in ((), ("--results", "c")):
            with pytest.raises(ConfigError, match="memory file itself"):
                call("export", "--out", out, *words)
    with pytest.raises(ConfigError, match=r"nosuch.*choose another place"):
        call("export", "--out", "nosuch/x.jsonl")
    assert (here / "researchfs.db").read_bytes() == before and call("check") == "researchfs.db is whole\n"
    (here / "all.jsonl").write_text("an older export")
    (here / "all.jsonl.part").write_text("somebody's")
    with pytest.raises(ConfigError, match=r"all\.jsonl\.part is there already"):
        call("export", "--out", "all.jsonl")
    assert (here / "all.jsonl").read_text() == "an older export"
    (here / "all.jsonl.part").unlink()
    call("export", "--out", "all.jsonl")
    assert call("restore", "all.jsonl", "--db", "again.db") and not (here / "all.jsonl.part").exists()
    call("export", "--out", "/dev/null")
    assert not Path("/dev/null").is_file()


def test_a_name_that_was_mistyped_makes_no_file_and_a_first_record_says_that_it_does(here: Path) -> None:
    for words in (["suggest", "goal"], ["propose", "train.py", "better.py"], ["log"]):
        with pytest.raises(StoreError, match=r"typo\.db is not there"):
            call(*words, "--db", "typo.db")
    assert not (here / "typo.db").exists()
    made = CliRunner().invoke(app, ["record", "train.py", "--metric", "2.5"], catch_exceptions=False)
    assert made.exit_code == 0 and "researchfs.db is not there yet" in made.stderr


def test_numbers_out_of_range_and_an_unknown_campaign_are_named(here: Path) -> None:
    call("record", "train.py", "--metric", "2.5", *WHERE)
    for words in (["search", "x", "--limit", "9" * 20], ["log", "--limit", "-1"], ["suggest", "goal", "--limit", "0"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2 and "--limit" in result.stderr
    for words in (["log", "--campaign", "nosuch"], ["export", "--results", "nosuch"], ["replay", "--campaign", "no"]):
        with pytest.raises(StoreError, match="it holds 'c'"):
            call(*words)


def test_what_others_wrote_is_printed_without_escapes(here: Path) -> None:
    escape = "gate\x1b]0;owned\x07 the\x9b2J \u202elayer"
    call("record", "train.py", "--metric", "2.5", "--description", escape, *WHERE)
    (here / "paper.md").write_text(f"# Units\n\nA {escape} multiplies.\n")
    call("ingest", "paper.md")
    name = json.loads(call("log", "--json"))[-1]["experiment"]
    for words in (["log"], ["log", "--json"], ["search", "multiplies"], ["why", name], ["export", "--results", "c"]):
        said = call(*words)
        assert "layer" in said and not set("\x1b\x07\x9b\u202e") & set(said), words


def test_every_command_is_in_the_readme() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    text = README.read_text(encoding="utf-8")
    assert commands - set(re.findall(r"looper memory ([a-z]+)", text)) == set()


def test_a_replay_compares_the_policies_that_are_named(here: Path) -> None:
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription", "a\t1.0\t0\tkeep\tbaseline"]
    rows += [f"b{n}\t{1 - n / 100}\t0\tkeep\tlr down {n}" for n in range(1, 6)]
    (here / "results.tsv").write_text("\n".join(rows))
    words = ["replay", "results.tsv", "--sigma", "0.01", "--resamples", "20", "--choices", "2", "--json"]
    assert [line["policy"] for line in json.loads(call(*words, "--policies", "ours, random"))] == ["ours", "random"]
    best, total = (
        json.loads(call(*words, "--policies", "order", "--measure", name))[0]["gain"]["mean"]
        for name in ("best", "sum")
    )
    assert 0.0 < best < total
    for wrong, told in ((["--policies", "greedy"], "unknown policy 'greedy'; choose among ours, ucb"),
                        (["--measure", "most"], "unknown measure 'most'; choose one of sum, best"),
                        (["--seed", "-1"], "seed=-1"), (["--policies", "keyword"], "give one")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            call(*words, *wrong)


def test_a_search_is_narrowed_to_a_scope_and_a_kind_of_source(here: Path) -> None:
    (here / "gates.md").write_text("# Gated units\n\nA gate multiplies the hidden channels.\n")
    call("ingest", "gates.md", "--scope", "gpu/")
    found = lambda *more: json.loads(call("search", "gated hidden channels", "--json", *more))["passages"]  # noqa: E731
    assert found() and found("--scope", "gpu/h100") and found("--source", "file")
    assert not found("--scope", "cpu") and not found("--source", "arxiv")
    with pytest.raises(ConfigError, match="unknown source 'files'; choose among arxiv"):
        found("--source", "files")
