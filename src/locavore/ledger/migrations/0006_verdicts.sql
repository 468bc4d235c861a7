-- Calls that the other model of a promised pair answers too, so that the promise can be watched.
CREATE TABLE explored (
    id          TEXT PRIMARY KEY,
    promise     TEXT NOT NULL,
    local_id    TEXT NOT NULL,
    cloud_id    TEXT NOT NULL,
    task        TEXT NOT NULL,
    kept        INTEGER NOT NULL,
    propensity  REAL NOT NULL,
    started_ms  INTEGER NOT NULL,
    shadow_seq  INTEGER,
    form_served REAL,
    form_shadow REAL,
    agrees      INTEGER
) STRICT;

CREATE INDEX explored_promise ON explored (promise);

-- What an application said of an answer, from 0 to 1. What was said is never changed.
-- n grows with every change, so that a reader sees what is new.
CREATE TABLE verdicts (
    id        TEXT PRIMARY KEY,
    n         INTEGER NOT NULL,
    served    REAL,
    shadow    REAL,
    judged_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX verdicts_n ON verdicts (n);
