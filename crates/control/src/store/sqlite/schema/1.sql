-- One row: the last transaction.
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO state (only, revision) VALUES (1, 0);

CREATE TABLE entries (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    lease INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX entries_of_leases ON entries (lease) WHERE lease IS NOT NULL;

-- What watches are told of the past; no value: the key was deleted.
CREATE TABLE changes (
    revision INTEGER NOT NULL,
    place INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB,
    PRIMARY KEY (revision, place)
) STRICT, WITHOUT ROWID;

-- Deadlines are not kept: a lease begins anew when the database is opened.
CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl_ms INTEGER NOT NULL
) STRICT;
