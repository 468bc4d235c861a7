-- How far the records have been told to somebody else, by name of the export.
CREATE TABLE exports (
    name TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
