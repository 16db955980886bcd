"""The tables of a campaign's file, as they are and as they were."""

from __future__ import annotations

APPLICATION_ID = 0x534B4144  # "SKAD"
SCHEMA_VERSION = 2

_SETTINGS = """CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (typeof(name) = 'text'),
    value TEXT NOT NULL CHECK (typeof(value) = 'text'))"""
_EVENTS = """CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL CHECK (typeof(at) = 'text'),
    who TEXT NOT NULL CHECK (typeof(who) = 'text'),
    kind TEXT NOT NULL
        CHECK (kind IN ({kinds})),
    detail TEXT NOT NULL CHECK (typeof(detail) = 'text'))"""
_IMAGES = """CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE CHECK (typeof(path) = 'text'),
    event INTEGER NOT NULL REFERENCES events)"""
# What was found at a path, anew whenever it changed. sha256 NULL: it was gone.
_CONTENTS = """CREATE TABLE contents (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT CHECK (typeof(sha256) = 'null' OR
        (typeof(sha256) = 'text' AND length(sha256) = 64)),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    mtime_ns INTEGER NOT NULL CHECK (typeof(mtime_ns) = 'integer'),
    problem TEXT CHECK (typeof(problem) IN ('null', 'text')),
    PRIMARY KEY (event, image))"""
# What somebody said of what an image was at that time. `decisions` hold; `looks`, of
# the events "repeat" and "confirm", are at what is decided already and change nothing,
# nor do those of "answer", which are kept apart to measure models with.
_SAID = """CREATE TABLE {name} (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    kind TEXT NOT NULL
        CHECK (kind IN ('label', 'skip', 'cant-tell', 'not-an-image')),
    label TEXT CHECK (typeof(label) =
        CASE kind WHEN 'label' THEN 'text' ELSE 'null' END),
    PRIMARY KEY (event, image))"""
_PROPOSALS = """CREATE TABLE proposals (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    score REAL CHECK (typeof(score) IN ('null', 'real')),
    guess TEXT CHECK (typeof(guess) IN ('null', 'text')),
    confidence REAL CHECK (typeof(confidence) IN ('null', 'real')),
    PRIMARY KEY (event, place))"""

# What an "audit" drew, in order, and by what chances: see skadma.evaluation.Audit.
_DRAWS = """CREATE TABLE draws (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    stratum INTEGER NOT NULL CHECK (typeof(stratum) = 'integer'),
    stratum_size INTEGER NOT NULL CHECK (typeof(stratum_size) = 'integer'),
    probability REAL NOT NULL CHECK (typeof(probability) = 'real'),
    PRIMARY KEY (event, place))"""

_KINDS_1 = ("start", "scan", "teach", "undo", "query", "train")
_KINDS_2 = (
    *_KINDS_1,
    *("repeat", "confirm", "audit", "answer", "release", "classes", "pool"),
)


def _schema(kinds: tuple[str, ...], *more: str) -> tuple[str, ...]:
    tables = (
        _SETTINGS,
        _EVENTS.format(kinds=", ".join(f"'{kind}'" for kind in kinds)),
        _IMAGES,
        _CONTENTS,
        _SAID.format(name="decisions"),
        _PROPOSALS,
        *more,
    )
    triggers = (
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END"
        for table in (statement.split()[2] for statement in tables)
        for action in ("UPDATE", "DELETE")
    )
    return (*tables, *triggers)


SCHEMAS = {
    1: _schema(_KINDS_1),
    2: _schema(_KINDS_2, _SAID.format(name="looks"), _DRAWS),
}
"""Statements by version; the last is the present one."""

SCHEMA = SCHEMAS[SCHEMA_VERSION]


def upgrade_statements(version: int) -> list[str]:
    """Say how to make the present tables of older ones, in one transaction.

    The events are copied into a table of the same name, for SQLite can change no
    CHECK; foreign keys are off meanwhile. All else that is new is added.

    Parameters
    ----------
    version : int
        Of the older tables.

    Returns
    -------
    list of str
    """
    old = {s for s in SCHEMAS[version] if not s.split()[2].startswith("events")}
    return [
        "CREATE TEMP TABLE kept AS SELECT * FROM main.events",
        "DROP TABLE main.events",
        *(statement for statement in SCHEMA if statement not in old),
        "INSERT INTO main.events SELECT * FROM temp.kept ORDER BY id",
        "DROP TABLE temp.kept",
        f"PRAGMA user_version = {SCHEMA_VERSION}",
    ]
