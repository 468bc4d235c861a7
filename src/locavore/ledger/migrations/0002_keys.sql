-- Client keys. A key itself is never stored, only its fingerprint (BLAKE2b, 128 bits, hex).
CREATE TABLE keys (
    name       TEXT PRIMARY KEY,
    body       BLOB NOT NULL,
    minted_by  TEXT,
    created_s  REAL NOT NULL,
    revoked_s  REAL
) STRICT;

-- One key may have two secrets for a while: the new one, and the old one until `expires_s`.
CREATE TABLE secrets (
    fingerprint TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    hint        TEXT NOT NULL,
    created_s   REAL NOT NULL,
    expires_s   REAL
) STRICT;

-- Counts the changes, so that a gateway sees with one look whether to compile its keys again.
CREATE TABLE key_changes (
    n INTEGER NOT NULL
) STRICT;

INSERT INTO key_changes VALUES (0);
