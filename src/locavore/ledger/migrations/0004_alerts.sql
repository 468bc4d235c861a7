-- Which budget alerts have been delivered: each threshold once per account and period.
CREATE TABLE alerts (
    quota   TEXT NOT NULL,
    subject TEXT NOT NULL,
    start_s INTEGER NOT NULL,
    percent INTEGER NOT NULL,
    sent_s  REAL NOT NULL,
    PRIMARY KEY (quota, subject, start_s, percent)
) STRICT, WITHOUT ROWID;
