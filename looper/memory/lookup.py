"""What can be read from the memory: its records, and the evidence and exposures that the ranking learns from."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from looper.errors import StoreError
from looper.memory.database import explained
from looper.memory.rows import (
    Chunk,
    Evidence,
    Experiment,
    Exposure,
    Item,
    Method,
    Origin,
    Outcome,
    Paper,
    Retrieval,
    Role,
    Scope,
    Verdict,
)
from looper.memory.tables import CHUNK, EXPERIMENT, IN_EVENT, ITEM, OUTCOME, PAPER, RETRIEVAL, VERDICT, Row, Values

_PRESENT = "SELECT method FROM experiment_method WHERE experiment = e.id AND role = 'present' ORDER BY method"
_EVIDENCE = f"""
SELECT e.id, e.place, (SELECT json_group_array(method) FROM ({_PRESENT})), e.scope, e.campaign,
    coalesce(r.query, ''), o.status, v.delta, v.sigma, coalesce(v.n, 1), o.wall, o.cost, e.description, o.metric_name
FROM (SELECT *, row_number() OVER (ORDER BY event) - 1 AS place FROM experiment) AS e
JOIN outcome AS o ON o.experiment = e.id
LEFT JOIN verdict AS v ON v.experiment = e.id
LEFT JOIN retrieval AS r ON r.id = e.retrieval
ORDER BY e.place
"""


class Lookup:
    """The reading half of the store; an unknown id is a StoreError that names it."""

    connection: sqlite3.Connection
    path: Path

    def paper(self, id: str) -> Paper:
        """Return a paper."""
        return Paper.model_validate(PAPER.values(self._one(f"SELECT {PAPER.selected} FROM paper WHERE id = ?", id)))

    def papers(self, origin: Origin | None = None) -> list[Paper]:
        """Return the papers of an origin, or all, in the order of their ids."""
        word = origin or ""
        rows = self._all(f"SELECT {PAPER.selected} FROM paper WHERE ? IN ('', origin) ORDER BY id", word)
        return [Paper.model_validate(PAPER.values(row)) for row in rows]

    def chunk(self, id: int) -> tuple[Paper, Chunk]:
        """Return a chunk and the paper that it stands in."""
        row = self._one(f"SELECT paper, {CHUNK.selected} FROM chunk WHERE id = ?", id)
        return self.paper(row[0]), Chunk.model_validate(CHUNK.values(row[1:]))

    def chunks(self, paper: str) -> list[tuple[int, Chunk]]:
        """Return the chunks of a paper with their ids, in their order."""
        rows = self._all(f"SELECT id, {CHUNK.selected} FROM chunk WHERE paper = ? ORDER BY position", paper)
        return [(row[0], Chunk.model_validate(CHUNK.values(row[1:]))) for row in rows]

    def method(self, id: str) -> Method:
        """Return a method."""
        return Method.model_validate_json(self._one("SELECT data FROM method WHERE id = ?", id)[0])

    def methods(self) -> list[Method]:
        """Return all methods in the order of their ids."""
        return [Method.model_validate_json(row[0]) for row in self._all("SELECT data FROM method ORDER BY id")]

    def retrieval(self, id: str) -> Retrieval:
        """Return a retrieval with its items."""
        row = self._one(f"SELECT {RETRIEVAL.selected} FROM retrieval WHERE id = ?", id)
        return self._retrievals([row])[0]

    def retrievals(self, campaign: str | None = None) -> list[Retrieval]:
        """Return the retrievals of a campaign, or all, in the order of writing."""
        return self._retrievals(
            self._all(
                f"SELECT {RETRIEVAL.selected} FROM retrieval WHERE ?1 IS NULL OR campaign = ?1 ORDER BY event", campaign
            )
        )

    def counted(self, table: str, campaign: str) -> int:
        """Return how many rows of a campaign a table has, `experiment` or `retrieval`."""
        count: int = self._all(f"SELECT count(*) FROM {table} WHERE campaign = ?", campaign)[0][0]
        return count

    def campaigns(self) -> list[str]:
        """Return the campaigns that have experiments, by name."""
        return [row[0] for row in self._all("SELECT DISTINCT campaign FROM experiment ORDER BY campaign")]

    def require_campaign(self, campaign: str) -> None:
        """Raise StoreError that names the known campaigns unless this is one."""
        known = self.campaigns()
        if campaign not in known:
            names = ", ".join(map(repr, known)) or "none"
            raise StoreError(f"no campaign {campaign!r} in {self.path}; it holds {names}")

    def experiment(self, id: str) -> Experiment:
        """Return an experiment with its methods."""
        row = self._one(f"SELECT {EXPERIMENT.selected} FROM experiment WHERE id = ?", id)
        return self._experiments([row])[0]

    def experiments(self, campaign: str | None = None, scope: Scope | None = None) -> list[Experiment]:
        """Return the experiments of a campaign and of exactly a scope, or all, in the order of writing."""
        return self._experiments(
            self._all(
                f"SELECT {EXPERIMENT.selected} FROM experiment "
                "WHERE (?1 IS NULL OR campaign = ?1) AND (?2 IS NULL OR scope = ?2) ORDER BY event",
                campaign,
                scope,
            )
        )

    def outcome(self, id: str) -> Outcome | None:
        """Return the outcome of an experiment; None while there is none."""
        rows = self._all(f"SELECT {OUTCOME.selected} FROM outcome WHERE experiment = ?", id)
        return Outcome.model_validate(OUTCOME.values(rows[0])) if rows else None

    def verdict(self, id: str) -> Verdict | None:
        """Return the verdict on an experiment; None while there is none."""
        told = "SELECT event.data FROM event WHERE event.id = verdict.event"
        rows = self._all(f"SELECT ({told}), {VERDICT.selected} FROM verdict WHERE experiment = ?", id)
        if not rows:
            return None
        more = {name: value for name, value in json.loads(rows[0][0]).items() if name in IN_EVENT["verdict"]}
        return Verdict.model_validate({**more, **VERDICT.values(rows[0][1:])})

    def program_before(self, id: str) -> str:
        """Return the digest of the program that an experiment changed, where no parent was known; '' otherwise."""
        rows = self._all("SELECT data FROM event WHERE subject = ? AND kind = 'before' ORDER BY id DESC LIMIT 1", id)
        return str(json.loads(rows[0][0])["program"]) if rows else ""

    def evidence(self) -> list[Evidence]:
        """Return the finished experiments, those with an outcome, in the order of writing."""
        fields = tuple(Evidence.model_fields)
        found = []
        for row in self._all(_EVIDENCE):
            values = dict(zip(fields, row, strict=True))
            values["methods"] = _names(row[2])
            found.append(Evidence.model_validate(values))
        return found

    def exposures(self) -> list[Exposure]:
        """Return each time that a method was shown, in order."""
        rows = self._all(
            "SELECT i.method, r.scope, r.event, i.attempted, r.id FROM retrieval_item AS i JOIN retrieval AS r "
            "ON r.id = i.retrieval WHERE i.method <> '' AND i.shown ORDER BY r.event, i.rank"
        )
        return self._exposures(rows)

    def query_exposures(self) -> list[Exposure]:
        """Return each time that a query was asked, in order; it was attempted if an experiment followed."""
        rows = self._all(
            "SELECT query, scope, event, id IN (SELECT retrieval FROM experiment), id FROM retrieval "
            "WHERE query <> '' ORDER BY event"
        )
        return self._exposures(rows)

    # ---------------------------------------------------------------- rows

    def _all(self, sql: str, *parameters: str | int | None) -> list[Row]:
        with explained(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def _one(self, sql: str, id: str | int) -> Row:
        rows = self._all(sql, id)
        if not rows:
            table = sql.split(" FROM ")[1].split(" ", 1)[0]
            count = self._all(f"SELECT count(*) FROM {table}")[0][0]
            raise StoreError(f"no {table} {id!r} in {self.path}, which holds {count}; list them to see their ids")
        return rows[0]

    def _of(self, sql: str, key: str, owners: list[Values], order: str = "") -> list[Row]:
        """Select what belongs to one owner through its index, to more in one pass over all."""
        if len(owners) == 1:
            return self._all(f"{sql} WHERE {key} = ?{order}", owners[0]["id"])
        return self._all(sql + order) if owners else []

    def _retrievals(self, rows: Iterable[Row]) -> list[Retrieval]:
        found = [RETRIEVAL.values(row) for row in rows]
        items: dict[str, list[Item]] = defaultdict(list)
        sql = f"SELECT retrieval, {ITEM.selected} FROM retrieval_item"
        for row in self._of(sql, "retrieval", found, " ORDER BY retrieval, rank"):
            items[row[0]].append(Item.model_validate(ITEM.values(row[1:])))
        return [Retrieval.model_validate({**values, "items": items[values["id"]]}) for values in found]

    def _experiments(self, rows: Iterable[Row]) -> list[Experiment]:
        found = [EXPERIMENT.values(row) for row in rows]
        methods: dict[str, dict[str, Role]] = defaultdict(dict)
        sql = "SELECT experiment, method, role FROM experiment_method"
        for experiment, method, role in self._of(sql, "experiment", found):
            methods[experiment][method] = Role(role)
        return [Experiment.model_validate({**values, "methods": methods[values["id"]]}) for values in found]

    def _exposures(self, rows: Iterable[Row]) -> list[Exposure]:
        events = [row[0] for row in self._all("SELECT event FROM experiment ORDER BY event")]
        return [
            Exposure(
                subject=subject,
                scope=scope,
                order=bisect_left(events, event),
                attempted=bool(attempted),
                retrieval=retrieval,
            )
            for subject, scope, event, attempted, retrieval in rows
        ]


def _names(text: str) -> tuple[str, ...]:
    names: list[str] = json.loads(text)
    return tuple(names)
