-- Histograms and counters for Prometheus, added to in the transaction that adds the calls.
-- bucket: index of the upper edge; -1: count and sum of a histogram. Counters have bucket 0.
CREATE TABLE metrics (
    name     TEXT NOT NULL,
    format   TEXT NOT NULL,
    provider TEXT NOT NULL,
    model    TEXT NOT NULL,
    label    TEXT NOT NULL,
    bucket   INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (name, format, provider, model, label, bucket)
) STRICT, WITHOUT ROWID;

-- What savings are made of: see BASELINE_MEASURES in sums.py.
ALTER TABLE sums ADD COLUMN retries_pico INTEGER NOT NULL DEFAULT 0;

ALTER TABLE sums ADD COLUMN beside_pico INTEGER NOT NULL DEFAULT 0;

ALTER TABLE sums ADD COLUMN beside_unknown INTEGER NOT NULL DEFAULT 0;

ALTER TABLE sums ADD COLUMN exact_baseline_pico INTEGER NOT NULL DEFAULT 0;

ALTER TABLE sums ADD COLUMN guessed_baseline_pico INTEGER NOT NULL DEFAULT 0;
