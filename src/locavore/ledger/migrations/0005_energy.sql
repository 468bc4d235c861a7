-- Readings of energy counters: joules since some moment of the counter's own choosing.
CREATE TABLE energy (
    meter  TEXT NOT NULL,
    at_ms  INTEGER NOT NULL,
    joules INTEGER NOT NULL,
    PRIMARY KEY (meter, at_ms)
) STRICT, WITHOUT ROWID;
