"""The event log of a campaign: an SQLite file to which rows are only ever added."""

from __future__ import annotations

import getpass
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import filelock

_logger = logging.getLogger(__name__)

DATABASE = "campaign.sqlite"
"""Name of the file in a campaign's folder."""

APPLICATION_ID = 0x534B4144  # "SKAD"
SCHEMA_VERSION = 1

EVENT_KINDS = (
    *("start", "scan", "teach", "undo", "query", "train", "repeat", "confirm"),
    *("audit", "answer", "release", "classes", "pool"),
)

_SETTINGS = """CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (typeof(name) = 'text'),
    value TEXT NOT NULL CHECK (typeof(value) = 'text'))"""
_EVENTS = f"""CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL CHECK (typeof(at) = 'text'),
    who TEXT NOT NULL CHECK (typeof(who) = 'text'),
    kind TEXT NOT NULL
        CHECK (kind IN ({", ".join(f"'{kind}'" for kind in EVENT_KINDS)})),
    detail TEXT NOT NULL CHECK (typeof(detail) = 'text'))"""
_IMAGES = """CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE CHECK (typeof(path) = 'text'),
    event INTEGER NOT NULL REFERENCES events)"""
# What a scan found at a path, a row whenever it changed. sha256 NULL: the file was
# missing.
_CONTENTS = """CREATE TABLE contents (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT CHECK (typeof(sha256) = 'null' OR
        (typeof(sha256) = 'text' AND length(sha256) = 64)),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    mtime_ns INTEGER NOT NULL CHECK (typeof(mtime_ns) = 'integer'),
    problem TEXT CHECK (typeof(problem) IN ('null', 'text')),
    PRIMARY KEY (event, image))"""
# What a person answered about an image, and the content the image had then. Rows of
# `decisions` belong to "teach" events and are the labels. Rows of `other_answers`
# belong to "repeat", "confirm" and "answer" events and change no label.
_ANSWERS = """CREATE TABLE {name} (
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
# The images that an "audit" event drew, in order, with the sampling design: see
# skadma.evaluation.Audit.
_DRAWS = """CREATE TABLE draws (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    stratum INTEGER NOT NULL CHECK (typeof(stratum) = 'integer'),
    stratum_size INTEGER NOT NULL CHECK (typeof(stratum_size) = 'integer'),
    probability REAL NOT NULL CHECK (typeof(probability) = 'real'),
    PRIMARY KEY (event, place))"""
_TABLES = (
    _SETTINGS,
    _EVENTS,
    _IMAGES,
    _CONTENTS,
    _ANSWERS.format(name="decisions"),
    _PROPOSALS,
    _ANSWERS.format(name="other_answers"),
    _DRAWS,
)

SCHEMA = (
    *_TABLES,
    *(
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END"
        for table in (statement.split()[2] for statement in _TABLES)
        for action in ("UPDATE", "DELETE")
    ),
)
"""The statements that make the tables and the triggers that keep rows as they are."""


class CampaignError(ValueError):
    """A campaign cannot do what was asked; the message says why and what helps."""


class CampaignBusyError(CampaignError):
    """Another process works on the campaign, and did not end in time."""


class EventLog:
    """The event log of a campaign.

    What a ``transaction`` wrote is on the disk when it ends, or none of it is. With
    `create`, the first transaction has to make the tables. Events carry the name `who`,
    the system's user if None. `wait` is how many seconds to wait for other processes.
    Threads may share it: they take turns.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        who: str | None = None,
        wait: float = 60,
    ) -> None:
        self.path = path
        self.who = who if who is not None else _user()
        self._wait = wait
        if not create and not path.is_file():
            raise CampaignError(
                f"There is no campaign in {str(path.parent)!r}: no {path.name}. Start "
                "one with 'skadma start' or Campaign.create."
            )
        self._turn = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=wait, isolation_level=None, check_same_thread=False
        )
        try:
            with self._translated():
                self._execute("PRAGMA trusted_schema = OFF")
                self._execute("PRAGMA foreign_keys = ON")
                self._execute("PRAGMA synchronous = FULL")
                if create:
                    self._execute("PRAGMA journal_mode = WAL")
                else:
                    self._check()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything or nothing, before or after other processes' writes."""
        with self._turn, self._translated():
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one state of the log, whatever other processes write meanwhile.

        Within another reading or a transaction, that one goes on.
        """
        with self._turn, self._translated():
            if self._connection.in_transaction:
                yield
                return
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")

    def locked(self, task: str) -> AbstractContextManager[None]:
        """Be the only process that queries or trains: see :func:`campaign_lock`."""
        return campaign_lock(self.path.parent, self._wait, task)

    @contextmanager
    def intact(self) -> Iterator[None]:
        """Turn errors about rows that no campaign writes into CampaignError."""
        try:
            yield
        except CampaignError:
            raise
        except (
            KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError,
        ) as error:  # fmt: skip
            raise self._damaged(str(error)) from error

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Select rows."""
        with self._turn, self._translated():
            return self._execute(statement, *values).fetchall()

    def make_tables(self, settings: dict[str, Any]) -> None:
        """Make the tables and write the settings, within the first transaction."""
        for statement in SCHEMA:
            self._execute(statement)
        self._execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.add("settings", ((k, json.dumps(v)) for k, v in settings.items()))

    def has_tables(self) -> bool:
        """Whether the file has any table; none where a start was broken off."""
        return bool(self.rows("SELECT 1 FROM sqlite_master"))

    def settings(self) -> dict[str, Any]:
        """Read the settings."""
        with self.intact():
            return {k: json.loads(v) for k, v in self.rows("SELECT * FROM settings")}

    def add_event(self, kind: str, *, who: str | None = None, **detail: Any) -> int:
        """Write an event with plain values, within a transaction; return its number."""
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        cursor = self._execute(
            "INSERT INTO events (at, who, kind, detail) VALUES (?, ?, ?, ?)",
            at,
            self.who if who is None else who,
            kind,
            json.dumps(detail, allow_nan=False),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows to a table, within a transaction."""
        for row in rows:
            marks = ", ".join("?" * len(row))
            self._execute(f"INSERT INTO {table} VALUES ({marks})", *row)

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except UnicodeDecodeError as error:  # a message that quotes a broken name
            raise self._damaged("SQLite's message is no text") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into CampaignError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            message = str(error)
            if "locked" in message or "busy" in message:
                raise CampaignBusyError(
                    f"Another process is writing to {str(self.path)!r} and did not end "
                    "in time; nothing was changed. Try again."
                ) from error
            raise CampaignError(
                f"{str(self.path)!r} cannot be read or written ({message}); nothing "
                "was changed. Is the disk full, or are rights missing?"
            ) from error
        except sqlite3.ProgrammingError as error:
            raise CampaignError(f"The campaign is closed: {error}") from error
        except sqlite3.Error as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> CampaignError:
        return CampaignError(
            f"{str(self.path)!r} is no intact campaign of skadma: {reason}."
        )

    def _check(self) -> None:
        """Refuse a file that is damaged, another program's, or has other tables.

        Foreign triggers and views would run within our statements.
        """
        if not self.has_tables():
            raise CampaignError(
                f"The start of the campaign in {str(self.path.parent)!r} was broken "
                "off before anything was in it. Start it again."
            )
        ((application,),) = self._execute("PRAGMA application_id")
        ((version,),) = self._execute("PRAGMA user_version")
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise CampaignError(
                f"{str(self.path)!r} is of a newer skadma (its schema is {version}, "
                f"this one knows {SCHEMA_VERSION}): upgrade skadma."
            )
        found = self._execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL "
            "AND name NOT IN ('sqlite_sequence')"
        )
        statements = {row[0] for row in found}
        known = application == APPLICATION_ID and version == SCHEMA_VERSION
        if not known or statements != set(SCHEMA):
            raise self._damaged("it has other tables than a campaign has")
        damage = self._execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise self._damaged(damage)
        if self._execute("PRAGMA foreign_key_check").fetchone():
            raise self._damaged("rows refer to rows that are not there")


@contextmanager
def campaign_lock(folder: Path, wait: float, task: str) -> Iterator[None]:
    """Be the only process that queries or trains; the lock ends with the process.

    Raises CampaignBusyError if another process holds it for longer than `wait` seconds.
    """
    note = folder / "campaign.lock.txt"
    lock = filelock.FileLock(folder / "campaign.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            holder = note.read_text("utf-8")
        except OSError:
            holder = "another process"
        _logger.info("waiting for %s", holder)
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout as error:
            raise CampaignBusyError(
                f"{holder} works on the campaign and did not end in {wait:g} s. "
                "What was decided is safe; try again later."
            ) from error
    try:
        try:
            note.write_text(f"'{task}' in process {os.getpid()}", "utf-8")
        except OSError as error:  # a full disk; the note only serves a message
            _logger.debug("%s", error)
        yield
    finally:
        lock.release()


def refuse_existing(path: Path) -> None:
    """Refuse a file with a campaign, but not one whose start was broken off."""
    if not path.exists():
        return
    log = EventLog(path, create=True)
    try:
        if log.has_tables():
            raise CampaignError(
                f"There is a campaign in {str(path.parent)!r} already. Go on with it, "
                "or start another one in another folder."
            )
    finally:
        log.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return "unknown"
