"""The memory's store: one SQLite file, to which papers, methods, retrievals, experiments and results are added."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from looper.errors import StoreError
from looper.memory import events
from looper.memory.database import POLL_SECONDS, explained, open_database, writing
from looper.memory.events import canonical
from looper.memory.lookup import Lookup
from looper.memory.rows import Chunk, Experiment, Method, Outcome, Paper, Retrieval, Role, Verdict
from looper.memory.tables import (
    CHUNK,
    EXPERIMENT,
    ITEM,
    KINDS,
    METHOD,
    METHOD_SOURCE,
    OUTCOME,
    PAPER,
    RETRIEVAL,
    VERDICT,
    Table,
    Values,
    plain,
)

BATCH = 500
"""Chunks in one transaction: other writers wait for one batch, not for a whole book."""


class MemoryStore(Lookup):
    """Context manager over one SQLite file; any number of processes may hold it open.

    Each write is one transaction that adds an event and the rows; when the call returns, both outlive the process.
    Adding the very same record again changes nothing, so a writer that was cut off may repeat itself.
    An object belongs to the thread that opened it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        self._held = False

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the file; makes it and its folder unless `read_only`.

        Raises StoreError, and leaves the file as it was, where it is not a memory file that this looper can use.
        """
        return cls(open_database(path, read_only=read_only), path)

    def copy_to(self, target: Path) -> None:
        """Copy everything, with what the journal holds, to a file that is not there yet; makes its folder."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with explained(target), closing(sqlite3.connect(target)) as copy:
            self.connection.backup(copy)

    def close(self) -> None:
        """Let the file go."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- knowledge

    def add_paper(self, paper: Paper, chunks: Iterable[Chunk]) -> bool:
        """Add a paper with its passages; False if the very same is there already.

        Another text under the same id replaces the passages, and its event supersedes the old one. A long text is
        written in batches; one that was cut off is listed by `check` and completed by adding it again.
        """
        values = plain(paper, f"paper {paper.id!r}")
        rows = [plain(chunk, f"chunk {chunk.locator!r} of {paper.id!r}") for chunk in chunks]
        told = {**values, "chunks": {"count": len(rows), "digest": chunks_digest(rows)}}
        with self._writing():
            known = self._paper_told(paper.id)
            if known is not None and canonical(known) == canonical(told):
                return False
            query = "SELECT coalesce(max(position) + 1, 0), count(*) FROM chunk WHERE paper = ?"
            start, old = self.connection.execute(query, (paper.id,)).fetchone()
            if max(len(rows), old) <= BATCH:
                # The event has to be there before the row, and the row before its chunks; its spans are known ahead.
                spans = [[self._next_chunk(), len(rows)]] if rows else []
                self._write_paper(values, self._paper_event(told, spans))
                self._write_chunks(paper.id, start, rows)
                self._drop_chunks(paper.id, start)
                return True
            mark = self._append("ingestion", paper.id, canonical(told))
            self._write_paper(values, mark)
        return self._ingest(values, told, rows, start, mark)

    def add_methods(self, methods: Iterable[Method]) -> int:
        """Add methods, or replace those that changed; returns how many were new or changed."""
        changed = 0
        prepared = [(method, plain(method, f"method {method.id!r}")) for method in methods]
        with self._writing():
            for method, values in prepared:
                data = canonical(values)
                known = self.connection.execute("SELECT data FROM method WHERE id = ?", (method.id,)).fetchone()
                if known is not None and known[0] == data:
                    continue
                event = self._append("method", method.id, data)
                METHOD.replace(self.connection, values, data=data, event=event)
                if known is not None:
                    self.connection.execute("DELETE FROM method_source WHERE method = ?", (method.id,))
                    self.connection.execute("DELETE FROM method_text WHERE id = ?", (method.id,))
                for source in {(source["paper"], source["locator"]): source for source in values["sources"]}.values():
                    self._require("chunk", source["chunk"], f"method {method.id!r}")
                    METHOD_SOURCE.insert(self.connection, source, method=method.id)
                self.connection.execute(
                    "INSERT INTO method_text (id, name, summary) VALUES (?, ?, ?)",
                    (method.id, method.name, method.summary),
                )
                changed += 1
        return changed

    # ---------------------------------------------------------------- experience

    def add_retrieval(self, retrieval: Retrieval) -> None:
        """Add what was asked and what came back."""
        values = plain(retrieval, f"retrieval {retrieval.id!r}")
        with self._writing():
            event = self._append_once(RETRIEVAL, retrieval.id, values)
            if event is None:
                return
            RETRIEVAL.insert(self.connection, values, event=event)
            for item in values["items"]:
                self._require("chunk", item["chunk"], f"item {item['rank']} of retrieval {retrieval.id!r}")
                ITEM.insert(self.connection, item, retrieval=retrieval.id)

    def add_experiment(self, experiment: Experiment, *, before: str = "") -> None:
        """Add a change that is tried; its retrieval's items of methods that are PRESENT count as attempted.

        `before` is the digest of the program that it changed, for one whose parent is not known yet.
        """
        who = f"experiment {experiment.id!r}"
        values = plain(experiment, who)
        with self._writing():
            self._require("retrieval", experiment.retrieval or None, who)
            self._require("experiment", experiment.parent or None, who)
            event = self._append_once(EXPERIMENT, experiment.id, values)
            if event is None:
                return
            EXPERIMENT.insert(self.connection, values, config_hash=experiment.config_hash, event=event)
            for method, role in experiment.methods.items():
                self.connection.execute(
                    "INSERT INTO experiment_method VALUES (?, ?, ?)", (experiment.id, method, role.value)
                )
                if role is Role.PRESENT and experiment.retrieval:
                    self.connection.execute(
                        "UPDATE retrieval_item SET attempted = 1 WHERE retrieval = ? AND method = ?",
                        (experiment.retrieval, method),
                    )
            if before:
                self._append("before", experiment.id, canonical({"program": before}))

    def add_outcome(self, outcome: Outcome) -> None:
        """Add what an experiment measured and cost; there is one outcome of an experiment."""
        who = f"the outcome of {outcome.experiment!r}"
        values = plain(outcome, who)
        with self._writing():
            self._require("experiment", outcome.experiment, who)
            event = self._append_once(OUTCOME, outcome.experiment, values)
            if event is not None:
                OUTCOME.insert(self.connection, values, event=event)

    def add_verdict(self, verdict: Verdict) -> None:
        """Add what an outcome says; a second verdict on an experiment supersedes the first."""
        who = f"the verdict on {verdict.experiment!r}"
        values = plain(verdict, who)
        with self._writing():
            self._require("experiment", verdict.experiment, who)
            self._require("experiment", verdict.baseline or None, who)
            if self._told(VERDICT, verdict.experiment) != canonical(values):
                event = self._append("verdict", verdict.experiment, canonical(values))
                VERDICT.replace(self.connection, values, event=event)

    def record(self, kind: str, subject: str, data: Mapping[str, Any]) -> int:
        """Add an event of your own, e.g. a note or a decision; returns its id."""
        if kind in KINDS:
            raise StoreError(f"events of kind {kind!r} are written with their rows; use add_{kind}, or another kind")
        try:
            text = canonical(dict(data))
            f"{kind}{subject}{text}".encode()
        except (TypeError, ValueError) as error:
            raise StoreError(f"event {kind!r} of {subject!r} cannot be stored: {error}") from error
        with self._writing():
            return events.append(self.connection, kind, subject, text)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make one transaction of all that is read and written within: the whole of it is kept, or nothing.

        Other writers wait meanwhile, so keep it short. One within another is part of that.
        """
        if self._held:
            yield
            return
        with writing(self.connection, self.path):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    # ---------------------------------------------------------------- within a transaction

    def _writing(self) -> AbstractContextManager[None]:
        return self.transaction()

    def _append(self, kind: str, subject: str, data: str) -> int:
        """Add an event that supersedes the last one of its kind about the subject."""
        earlier = events.latest(self.connection, kind, subject)
        return events.append(self.connection, kind, subject, data, supersedes=earlier)

    def _append_once(self, table: Table, id: str, values: Values) -> int | None:
        """Add the event of a record that never changes; None if the very same is there already."""
        data = canonical(values)
        told = self._told(table, id)
        if told is None:
            return events.append(self.connection, table.name, id, data)
        if told != data:
            raise StoreError(
                f"{self.path} holds another {table.name} of {id!r} already, and it stays; "
                "give the new experiment or retrieval an id of its own"
            )
        return None

    def _told(self, table: Table, id: str) -> str | None:
        """Return the data of the event behind a row; None if there is no such row."""
        row = self.connection.execute(
            f"SELECT event.data FROM {table.name} AS t JOIN event ON event.id = t.event WHERE t.{table.columns[0]} = ?",
            (id,),
        ).fetchone()
        return None if row is None else str(row[0])

    def _require(self, table: str, id: str | int | None, who: str) -> None:
        """Raise StoreError unless a table has a row of this id; None is no reference."""
        if id is not None and not self.connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
            raise StoreError(f"{who} names {table} {id!r}, which {self.path} does not hold; add that first")

    # ---------------------------------------------------------------- papers

    def _paper_told(self, id: str) -> Values | None:
        """Return what the event of a complete paper says, without where its chunks were put."""
        row = self.connection.execute(
            "SELECT event.kind, event.data FROM paper JOIN event ON event.id = paper.event WHERE paper.id = ?", (id,)
        ).fetchone()
        if row is None or row[0] != "paper":
            return None
        told: Values = json.loads(row[1])
        told["chunks"].pop("spans")
        return told

    def _paper_event(self, told: Values, spans: list[list[int]]) -> int:
        return self._append("paper", told["id"], canonical({**told, "chunks": {**told["chunks"], "spans": spans}}))

    def _write_paper(self, values: Values, event: int) -> None:
        PAPER.replace(self.connection, values, event=event)

    def _ingest(self, values: Values, told: Values, rows: list[Values], start: int, mark: int) -> bool:
        """Write a long text in batches under the ingestion event `mark`; False if another ingestion took over.

        New chunks go in before old ones go out, so that the id of a chunk is never given to another.
        """
        spans: list[list[int]] = []
        for at in range(0, len(rows), BATCH):
            with self._writing():
                if not self._holds(told["id"], mark):
                    return False
                part = rows[at : at + BATCH]
                spans.append([self._next_chunk(), len(part)])
                self._write_chunks(told["id"], start + at, part)
            time.sleep(2.0 * POLL_SECONDS)  # others get their turn
        while True:
            with self._writing():
                if not self._holds(told["id"], mark):
                    return False
                if not self._drop_chunks(told["id"], start):
                    self._write_paper(values, self._paper_event(told, spans))
                    return True

    def _holds(self, paper: str, mark: int) -> bool:
        row = self.connection.execute("SELECT event FROM paper WHERE id = ?", (paper,)).fetchone()
        return row is not None and row[0] == mark

    def _next_chunk(self) -> int:
        number: int = self.connection.execute("SELECT coalesce(max(id), 0) + 1 FROM chunk").fetchone()[0]
        return number

    def _write_chunks(self, paper: str, start: int, rows: list[Values]) -> None:
        first = self._next_chunk()
        for n, row in enumerate(rows):
            CHUNK.insert(self.connection, row, id=first + n, paper=paper, position=start + n)

    def _drop_chunks(self, paper: str, before: int) -> int:
        """Delete up to a batch of the chunks that an earlier text left; returns how many."""
        return self.connection.execute(
            "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE paper = ? AND position < ? LIMIT ?)",
            (paper, before, BATCH),
        ).rowcount


def chunks_digest(rows: Iterable[Values]) -> str:
    """Return SHA-256 of a paper's chunks in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical(row).encode())
        digest.update(b"\n")
    return digest.hexdigest()
