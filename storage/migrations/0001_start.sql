CREATE TABLE bundles (
    name    TEXT PRIMARY KEY,
    digest  TEXT NOT NULL,
    dir     TEXT NOT NULL,
    created INTEGER NOT NULL
);

CREATE TABLE datasets (
    name    TEXT NOT NULL,
    version TEXT NOT NULL, -- digest of the manifest
    images  INTEGER NOT NULL,
    classes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE runs (
    id         TEXT PRIMARY KEY,
    spec       TEXT NOT NULL, -- JSON: what was asked for
    state      TEXT NOT NULL,
    slice      INTEGER NOT NULL DEFAULT 0, -- the number of the slice to come
    step       INTEGER NOT NULL DEFAULT 0,
    steps      INTEGER NOT NULL DEFAULT 0,
    checkpoint TEXT NOT NULL DEFAULT '', -- object key
    heartbeat  INTEGER NOT NULL DEFAULT 0,
    error      TEXT NOT NULL DEFAULT '',
    prompt     TEXT NOT NULL DEFAULT '', -- name, when done
    metrics    TEXT NOT NULL DEFAULT '{}',
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL
);
CREATE INDEX runs_by_state ON runs (state, heartbeat);

CREATE TABLE run_events (
    run  TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq  INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE prompts (
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    digest   TEXT NOT NULL, -- SHA-256 of the file
    bundle   TEXT NOT NULL,
    run      TEXT NOT NULL,
    object   TEXT NOT NULL, -- key
    size     INTEGER NOT NULL,
    card     TEXT NOT NULL, -- JSON
    promoted INTEGER NOT NULL DEFAULT 0,
    created  INTEGER NOT NULL,
    PRIMARY KEY (name, revision)
);
CREATE UNIQUE INDEX one_promoted ON prompts (name) WHERE promoted;

CREATE TABLE keys (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    hash    TEXT NOT NULL UNIQUE, -- SHA-256 of the key
    created INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
);
