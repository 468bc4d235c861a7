-- Each batch of one writer is a block; blocks form a chain, so that a changed row shows.
-- hash = SHA-256(previous hash of the writer || rows_hash || bodies_hash)
CREATE TABLE blocks (
    writer      INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    rows_hash   BLOB NOT NULL,
    bodies_hash BLOB NOT NULL,
    hash        BLOB NOT NULL,
    PRIMARY KEY (writer, n)
) STRICT, WITHOUT ROWID;

-- Rows are never changed: a correction is a new entry, in a chain of its own.
CREATE TABLE corrections (
    n          INTEGER PRIMARY KEY,
    seq        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    delta_pico INTEGER NOT NULL,
    resolves   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    hash       BLOB NOT NULL
) STRICT;

-- Double entry: whoever called owes what the provider is owed. Each attempt and correction is two
-- rows that cancel out; an unknown cost has no entry until a correction gives it one.
CREATE VIEW entries AS
    SELECT a.seq, a.n AS attempt, a.started_ms AS booked_ms, a.kind AS reason,
           'expense:' || c.tenant || '/' || c.team || '/' || c.key AS account, a.cost_pico AS pico
      FROM attempts a JOIN calls c USING (seq) WHERE a.cost_pico IS NOT NULL
    UNION ALL
    SELECT a.seq, a.n, a.started_ms, a.kind, 'payable:' || a.provider, -a.cost_pico
      FROM attempts a WHERE a.cost_pico IS NOT NULL
    UNION ALL
    SELECT k.seq, k.attempt, k.created_ms, k.reason,
           'expense:' || c.tenant || '/' || c.team || '/' || c.key, k.delta_pico
      FROM corrections k JOIN calls c USING (seq)
    UNION ALL
    SELECT k.seq, k.attempt, k.created_ms, k.reason, 'payable:' || a.provider, -k.delta_pico
      FROM corrections k JOIN attempts a ON a.seq = k.seq AND a.n = k.attempt;
