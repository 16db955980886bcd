"""The campaign's file: one SQLite database to which rows are only ever added."""

from __future__ import annotations

import getpass
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x534B4144  # "SKAD"
SCHEMA_VERSION = 1

_TABLES = (
    """CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (typeof(name) = 'text'),
    value TEXT NOT NULL CHECK (typeof(value) = 'text'))""",
    """CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL CHECK (typeof(at) = 'text'),
    who TEXT NOT NULL CHECK (typeof(who) = 'text'),
    kind TEXT NOT NULL
        CHECK (kind IN ('start', 'scan', 'teach', 'undo', 'query', 'train')),
    detail TEXT NOT NULL CHECK (typeof(detail) = 'text'))""",
    """CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE CHECK (typeof(path) = 'text'),
    event INTEGER NOT NULL REFERENCES events)""",
    # What was found at a path, anew whenever it changed. sha256 NULL: it was gone.
    """CREATE TABLE contents (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT CHECK (typeof(sha256) = 'null' OR
        (typeof(sha256) = 'text' AND length(sha256) = 64)),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    mtime_ns INTEGER NOT NULL CHECK (typeof(mtime_ns) = 'integer'),
    problem TEXT CHECK (typeof(problem) IN ('null', 'text')),
    PRIMARY KEY (event, image))""",
    # A decision is about what the image was at that time.
    """CREATE TABLE decisions (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    kind TEXT NOT NULL
        CHECK (kind IN ('label', 'skip', 'cant-tell', 'not-an-image')),
    label TEXT CHECK (typeof(label) =
        CASE kind WHEN 'label' THEN 'text' ELSE 'null' END),
    PRIMARY KEY (event, image))""",
    """CREATE TABLE proposals (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    score REAL CHECK (typeof(score) IN ('null', 'real')),
    guess TEXT CHECK (typeof(guess) IN ('null', 'text')),
    confidence REAL CHECK (typeof(confidence) IN ('null', 'real')),
    PRIMARY KEY (event, place))""",
)
_NAMES = ("settings", "events", "images", "contents", "decisions", "proposals")
_TRIGGERS = tuple(
    f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'a campaign only ever adds'); END"
    for table in _NAMES
    for action in ("UPDATE", "DELETE")
)
SCHEMA = (*_TABLES, *_TRIGGERS)


class CampaignError(ValueError):
    """A campaign cannot do what was asked; the message says why and what helps."""


class CampaignBusyError(CampaignError):
    """Another process works on the campaign, and did not end in time."""


class Store:
    """The database of a campaign.

    Whatever a ``transaction`` wrote is on the disk when it ends, or none of it.

    Parameters
    ----------
    path : Path
    create : bool, default=False
        Make the tables, in the first transaction.
    who : str, optional
        Whose name events carry; the system's user if None.
    wait : float, default=60
        Seconds to wait for another process's transaction.
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
        if not create and not path.is_file():
            raise CampaignError(
                f"There is no campaign in {str(path.parent)!r}: no {path.name}. Start "
                "one with 'skadma start' or Campaign.create."
            )
        self._connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
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
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all of it or nothing; other processes' writes come before or after."""
        with self._translated():
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
        """See one state of the campaign, whatever others write meanwhile."""
        with self._translated():
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")

    @contextmanager
    def intact(self) -> Iterator[None]:
        """Say so where the log holds what no campaign writes."""
        try:
            yield
        except CampaignError:
            raise
        except (
            KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError,
        ) as error:  # fmt: skip
            raise self._no_campaign(str(error)) from error

    def rows(self, statement: str, *values: Any) -> list[tuple]:
        """Select rows."""
        with self._translated():
            return self._execute(statement, *values).fetchall()

    def make_tables(self, settings: dict[str, Any]) -> None:
        """Make the tables and write the settings, within the first transaction.

        Raises
        ------
        CampaignError
            If there is a campaign already.
        """
        if self._execute("SELECT 1 FROM sqlite_master").fetchone():
            raise self._exists()
        for statement in SCHEMA:
            self._execute(statement)
        self._execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.add("settings", ((k, json.dumps(v)) for k, v in settings.items()))

    def settings(self) -> dict[str, Any]:
        """Read the settings."""
        try:
            return {k: json.loads(v) for k, v in self.rows("SELECT * FROM settings")}
        except (ValueError, RecursionError) as error:
            if isinstance(error, CampaignError):
                raise
            raise self._no_campaign(str(error)) from error

    def add_event(self, kind: str, **detail: Any) -> int:
        """Write an event down, within a transaction.

        Returns
        -------
        int
            Its number.
        """
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        cursor = self._execute(
            "INSERT INTO events (at, who, kind, detail) VALUES (?, ?, ?, ?)",
            at,
            self.who,
            kind,
            json.dumps(detail, allow_nan=False),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add(self, table: str, rows: Iterable[tuple]) -> None:
        """Add rows to a table, within a transaction."""
        for row in rows:
            marks = ", ".join("?" * len(row))
            self._execute(f"INSERT INTO {table} VALUES ({marks})", *row)

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except UnicodeDecodeError as error:  # a message that quotes a broken name
            raise self._no_campaign("SQLite's message is no text") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
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
            raise self._no_campaign(str(error)) from error

    def _no_campaign(self, reason: str) -> CampaignError:
        return CampaignError(
            f"{str(self.path)!r} is no intact campaign of skadma: {reason}."
        )

    def _exists(self) -> CampaignError:
        return CampaignError(
            f"There is a campaign in {str(self.path.parent)!r} already. Go on with it, "
            "or start another one in another folder."
        )

    def _check(self) -> None:
        """Refuse what is damaged, of another program, or holds more than our tables.

        Foreign triggers and views would run within our statements.
        """
        if not self._execute("SELECT 1 FROM sqlite_master").fetchone():
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
        if application != APPLICATION_ID or statements != set(SCHEMA):
            raise self._no_campaign("it has other tables than a campaign has")
        damage = self._execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise self._no_campaign(damage)
        if self._execute("PRAGMA foreign_key_check").fetchone():
            raise self._no_campaign("rows refer to rows that are not there")


def refuse_existing(path: Path) -> None:
    """Refuse a file with a campaign, but not one whose start was broken off.

    Raises
    ------
    CampaignError
    """
    store = Store(path, create=True)
    try:
        if store.rows("SELECT 1 FROM sqlite_master"):
            raise store._exists()
    finally:
        store.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return "unknown"
