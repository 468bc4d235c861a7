-- Money is INTEGER pico-dollars (10^-12 USD); NULL is unknown, which is not zero.
-- STRICT: an integer sum that no longer fits is an error, not a float.

-- One row per worker process that ever wrote a journal, and how far that journal is ingested.
CREATE TABLE writers (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    segment  INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT;

CREATE TABLE calls (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL,
    writer        INTEGER NOT NULL,
    parent_id     TEXT,
    started_ms    INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    format        TEXT NOT NULL,
    stream        INTEGER NOT NULL,
    outcome       TEXT NOT NULL,
    status        INTEGER NOT NULL,
    requested     TEXT NOT NULL,
    task          TEXT NOT NULL,
    backend       TEXT NOT NULL,
    tenant        TEXT NOT NULL,
    team          TEXT NOT NULL,
    key           TEXT NOT NULL,
    user          TEXT,
    session       TEXT,
    attempts      INTEGER NOT NULL,
    unknown_cost  INTEGER NOT NULL,
    cost_pico     INTEGER NOT NULL,
    baseline_pico INTEGER,
    flags         TEXT NOT NULL
) STRICT;

CREATE INDEX calls_id ON calls (id);

CREATE INDEX calls_parent ON calls (parent_id) WHERE parent_id IS NOT NULL;

-- The whole record as the journal held it: decision with every candidate, attempts, words.
CREATE TABLE records (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    seq                 INTEGER NOT NULL,
    n                   INTEGER NOT NULL,
    id                  TEXT NOT NULL,
    kind                TEXT NOT NULL,
    backend             TEXT NOT NULL,
    provider            TEXT NOT NULL,
    model               TEXT NOT NULL,
    place               TEXT NOT NULL,
    started_ms          INTEGER NOT NULL,
    duration_ms         INTEGER NOT NULL,
    ttft_ms             INTEGER,
    status              INTEGER,
    fault               TEXT,
    input_tokens        INTEGER,
    output_tokens       INTEGER,
    cache_read_tokens   INTEGER,
    cache_write_tokens  INTEGER,
    reasoning_tokens    INTEGER,
    input_audio_tokens  INTEGER,
    output_audio_tokens INTEGER,
    estimated           INTEGER NOT NULL,
    cost_pico           INTEGER,
    price_source        TEXT NOT NULL,
    PRIMARY KEY (seq, n)
) STRICT, WITHOUT ROWID;

-- Sums by hour (span_s 3600) and by day (86400), UTC, kept up in the transaction that adds rows.
CREATE TABLE sums (
    span_s             INTEGER NOT NULL,
    bucket             INTEGER NOT NULL,
    tenant             TEXT NOT NULL,
    team               TEXT NOT NULL,
    key                TEXT NOT NULL,
    task               TEXT NOT NULL,
    format             TEXT NOT NULL,
    backend            TEXT NOT NULL,
    provider           TEXT NOT NULL,
    place              TEXT NOT NULL,
    calls              INTEGER NOT NULL,
    served             INTEGER NOT NULL,
    failed             INTEGER NOT NULL,
    refused            INTEGER NOT NULL,
    cancelled          INTEGER NOT NULL,
    duration_ms        INTEGER NOT NULL,
    attempts           INTEGER NOT NULL,
    unknown_cost       INTEGER NOT NULL,
    missing_usage      INTEGER NOT NULL,
    estimated          INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens   INTEGER NOT NULL,
    cost_pico          INTEGER NOT NULL,
    compared           INTEGER NOT NULL,
    compared_cost_pico INTEGER NOT NULL,
    baseline_pico      INTEGER NOT NULL,
    PRIMARY KEY (span_s, bucket, tenant, team, key, task, format, backend, provider, place)
) STRICT, WITHOUT ROWID;

-- What the journal held and the store could not read: kept, counted, shown in every report.
CREATE TABLE rejects (
    writer   INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (writer, segment, position)
) STRICT;
