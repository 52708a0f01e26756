"""The SQLite schema of the memory, as migrations: entry n brings a file from version n to n + 1."""

from __future__ import annotations

FIRST = """
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    supersedes INTEGER REFERENCES event (id),
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER event_is_append_only_1 BEFORE UPDATE ON event BEGIN SELECT RAISE (ABORT, 'events are append-only'); END;
CREATE TRIGGER event_is_append_only_2 BEFORE DELETE ON event BEGIN SELECT RAISE (ABORT, 'events are append-only'); END;
CREATE INDEX event_subject ON event (subject, kind);

CREATE TABLE paper (
    id TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    title TEXT NOT NULL,
    version TEXT NOT NULL,
    url TEXT NOT NULL,
    authors TEXT NOT NULL,
    licence TEXT NOT NULL,
    sha TEXT NOT NULL,
    scope TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;

CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    paper TEXT NOT NULL REFERENCES paper (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    locator TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    identifiers TEXT NOT NULL,
    UNIQUE (paper, position)
) STRICT;
CREATE VIRTUAL TABLE chunk_text USING fts5 (
    title, body, content='chunk', content_rowid='id', tokenize='porter unicode61'
);
CREATE VIRTUAL TABLE chunk_identifiers USING fts5 (
    identifiers, content='chunk', content_rowid='id', tokenize='trigram'
);
CREATE VIRTUAL TABLE chunk_terms USING fts5vocab (chunk_text, 'row');
CREATE TRIGGER chunk_added AFTER INSERT ON chunk BEGIN
    INSERT INTO chunk_text (rowid, title, body) VALUES (new.id, new.title, new.body);
    INSERT INTO chunk_identifiers (rowid, identifiers) VALUES (new.id, new.identifiers);
END;
CREATE TRIGGER chunk_removed AFTER DELETE ON chunk BEGIN
    INSERT INTO chunk_text (chunk_text, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    INSERT INTO chunk_identifiers (chunk_identifiers, rowid, identifiers) VALUES ('delete', old.id, old.identifiers);
END;
CREATE TABLE embedding (
    chunk INTEGER PRIMARY KEY REFERENCES chunk (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    vector BLOB NOT NULL
) STRICT;

CREATE TABLE method (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    category TEXT NOT NULL,
    summary TEXT NOT NULL,
    data TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;
CREATE TABLE method_source (
    method TEXT NOT NULL REFERENCES method (id) ON DELETE CASCADE,
    paper TEXT NOT NULL,
    locator TEXT NOT NULL,
    chunk INTEGER REFERENCES chunk (id) ON DELETE SET NULL,
    PRIMARY KEY (method, paper, locator)
) STRICT;
CREATE VIRTUAL TABLE method_text USING fts5 (id UNINDEXED, name, summary, tokenize='porter unicode61');

CREATE TABLE retrieval (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    goal TEXT NOT NULL,
    query TEXT NOT NULL,
    code_sha TEXT NOT NULL,
    scope TEXT NOT NULL,
    campaign TEXT NOT NULL,
    policy TEXT NOT NULL,
    seed INTEGER NOT NULL,
    tokens INTEGER,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;
CREATE TABLE retrieval_item (
    retrieval TEXT NOT NULL REFERENCES retrieval (id),
    rank INTEGER NOT NULL,
    method TEXT NOT NULL,
    chunk INTEGER REFERENCES chunk (id) ON DELETE SET NULL,
    score REAL NOT NULL,
    parts TEXT NOT NULL,
    shown INTEGER NOT NULL,
    attempted INTEGER NOT NULL,
    PRIMARY KEY (retrieval, rank)
) STRICT;
CREATE INDEX retrieval_item_method ON retrieval_item (method);

CREATE TABLE experiment (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    campaign TEXT NOT NULL,
    number INTEGER NOT NULL,
    parent TEXT NOT NULL,
    retrieval TEXT NOT NULL,
    diff TEXT NOT NULL,
    ast_hash TEXT NOT NULL,
    config TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    scope TEXT NOT NULL,
    seed INTEGER NOT NULL,
    budget_kind TEXT NOT NULL,
    budget REAL NOT NULL,
    description TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;
CREATE INDEX experiment_campaign ON experiment (campaign, number);
CREATE INDEX experiment_ast ON experiment (ast_hash);
CREATE INDEX experiment_config ON experiment (config_hash);
CREATE TABLE experiment_method (
    experiment TEXT NOT NULL REFERENCES experiment (id),
    method TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (experiment, method)
) STRICT;
CREATE INDEX experiment_method_method ON experiment_method (method);

CREATE TABLE outcome (
    experiment TEXT PRIMARY KEY REFERENCES experiment (id),
    status TEXT NOT NULL,
    metric_name TEXT NOT NULL,
    metric REAL,
    steps INTEGER,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost REAL,
    wall REAL,
    memory REAL,
    log TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;
CREATE TABLE verdict (
    experiment TEXT PRIMARY KEY REFERENCES experiment (id),
    baseline TEXT NOT NULL,
    delta REAL,
    sigma REAL,
    n INTEGER NOT NULL,
    p_improve REAL,
    decision TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event (id)
) STRICT;
"""

MIGRATIONS: tuple[str, ...] = (FIRST,)
"""What `PRAGMA user_version` counts; a released entry never changes."""

VERSION = len(MIGRATIONS)
"""Version of the files that this program writes."""
