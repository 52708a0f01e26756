"""What a campaign writes to its memory: every run is a row of its own, also of a program that was tried before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from looper.benchmarks.research.measurement import Measurement
from looper.campaigns.book import Book
from looper.campaigns.campaign import Proposal, Running
from looper.campaigns.trials import Fate
from looper.loopgraph import LoopGraph
from looper.memory.export import results

CODE, OTHER = "LR = 0.1\n", "LR = 0.2\n"


def test_a_program_that_is_tried_again_has_rows_of_its_own(tmp_path: Path) -> None:
    scored = Measurement(status="ok", val_bpb=3.0, tokens=512)
    with LoopGraph(tmp_path / "memory.db", campaign="c", scope="s") as graph:
        book = Book(memory=graph, campaign="c", scope="s", budget_kind="tokens", budget=512)
        book.baseline(CODE, 1, scored)
        about = {"fate": Fate.DISCARD, "description": "lr", "retrieval": "", "spent": {}}
        ids = [book.trial(OTHER, CODE, {1: scored, 2: scored}, **about).id for _ in range(2)]
        book.replicate(CODE, 1, scored)
        rows = graph.client.store.experiments()
    assert len({row.id for row in rows}) == len(rows) == 6 and set(ids) <= {row.id for row in rows}


def test_the_unchanged_program_proposed_again_is_no_baseline(tmp_path: Path) -> None:
    scored = Measurement(status="ok", val_bpb=3.0, tokens=512)
    with LoopGraph(tmp_path / "memory.db", campaign="c", scope="s") as graph:
        book = Book(memory=graph, campaign="c", scope="s", budget_kind="tokens", budget=512)
        book.baseline(CODE, 1, scored)
        book.trial(OTHER, CODE, {1: scored}, fate=Fate.KEEP, description="lr", retrieval="", spent={})
        book.trial(CODE, OTHER, {1: scored}, fate=Fate.DISCARD, description="back", retrieval="", spent={})
        _, *rows = [line.split("\t")[3:] for line in results(graph.client.store, "c").splitlines()]
    assert rows == [["keep", "baseline"], ["keep", "lr"], ["discard", "back"]]


def test_lines_of_a_program_that_the_parser_gives_up_on_are_none() -> None:
    deep = Proposal(program=f"LR = {'-' * 20_000}1\n", patch="", description="", wrong="", session=None)  # type: ignore[arg-type]
    running = SimpleNamespace(program=CODE)
    assert Running._added(running, deep) == 0  # type: ignore[arg-type]
