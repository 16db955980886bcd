"""The event log of a campaign: an SQLite file to which rows are only ever added."""

from __future__ import annotations

import getpass
import hashlib
import itertools
import json
import logging
import operator
import os
import shutil
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
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

# What a person answered about an image, and the content the image had then. Rows of
# `decisions` belong to "teach" events and are the labels. Rows of `other_answers`
# belong to "repeat", "confirm" and "answer" events and change no label.
_ANSWERS = """CREATE TABLE {} (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    kind TEXT NOT NULL
        CHECK (kind IN ('label', 'skip', 'cant-tell', 'not-an-image')),
    label TEXT CHECK (typeof(label) =
        CASE kind WHEN 'label' THEN 'text' ELSE 'null' END),
    PRIMARY KEY (event, image))"""
_TABLES = (
    """CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (typeof(name) = 'text'),
    value TEXT NOT NULL CHECK (typeof(value) = 'text'))""",
    f"""CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL CHECK (typeof(at) = 'text'),
    who TEXT NOT NULL CHECK (typeof(who) = 'text'),
    kind TEXT NOT NULL CHECK (kind IN {EVENT_KINDS}),
    detail TEXT NOT NULL CHECK (typeof(detail) = 'text'))""",
    """CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE CHECK (typeof(path) = 'text'),
    event INTEGER NOT NULL REFERENCES events)""",
    # What a scan found at a path, a row whenever it changed. sha256 NULL: the file was
    # missing.
    """CREATE TABLE contents (
    event INTEGER NOT NULL REFERENCES events,
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT CHECK (typeof(sha256) = 'null' OR
        (typeof(sha256) = 'text' AND length(sha256) = 64)),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    mtime_ns INTEGER NOT NULL CHECK (typeof(mtime_ns) = 'integer'),
    problem TEXT CHECK (typeof(problem) IN ('null', 'text')),
    PRIMARY KEY (event, image))""",
    _ANSWERS.format("decisions"),
    """CREATE TABLE proposals (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    score REAL CHECK (typeof(score) IN ('null', 'real')),
    guess TEXT CHECK (typeof(guess) IN ('null', 'text')),
    confidence REAL CHECK (typeof(confidence) IN ('null', 'real')),
    PRIMARY KEY (event, place))""",
    _ANSWERS.format("other_answers"),
    # The images that an "audit" event drew, in order, with the sampling design: see
    # skadma.evaluation.Audit.
    """CREATE TABLE draws (
    event INTEGER NOT NULL REFERENCES events,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer'),
    image INTEGER NOT NULL REFERENCES images,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64),
    stratum INTEGER NOT NULL CHECK (typeof(stratum) = 'integer'),
    stratum_size INTEGER NOT NULL CHECK (typeof(stratum_size) = 'integer'),
    PRIMARY KEY (event, place))""",
    # A chain: the digest of an event covers the one before it, the event and its rows.
    # The first one covers the settings.
    """CREATE TABLE digests (
    event INTEGER PRIMARY KEY REFERENCES events,
    sha256 TEXT NOT NULL CHECK (typeof(sha256) = 'text' AND length(sha256) = 64))""",
)
_OF_EVENTS = {
    **{"events": ("id", "id"), "images": ("event", "id")},
    **dict.fromkeys(("contents", "decisions", "other_answers"), ("event", "image")),
    **dict.fromkeys(("proposals", "draws"), ("event", "place")),
}
"""Columns that sort what a digest covers: the event's number, then the row's."""

SCHEMA = (
    *_TABLES,
    "CREATE INDEX images_of_event ON images (event)",
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
    Threads may share it: they take turns. Without `check`, a log is opened whose rows
    were changed. `moved` has folders of images that are elsewhere by now, by name.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        who: str | None = None,
        wait: float = 60,
        check: bool = True,
        moved: Mapping[str, Path] | None = None,
    ) -> None:
        self.path = path
        self.moved = moved or {}
        self.who = who if who is not None else _user()
        self._wait = wait
        if not create and not path.is_file():
            raise CampaignError(
                f"There is no campaign in {str(path.parent)!r}: no {path.name}. Start "
                "one with 'skadma label PHOTOS --classes crack ok'."
            )
        self._uri = path.absolute().as_uri()
        self._wal = path.with_name(f"{path.name}-wal")  # SQLite's, with what is new
        self._files: dict[Path, tuple[int, int]] = {}
        self.campaign_id = uuid.uuid4().hex  # copies of the folder have the same
        self._checked: int | None = None
        self._turn = threading.RLock()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.read_only = False
        self._connection = self._connect(path)
        try:
            with self._translated():
                if not create and not self._is_writable():
                    self._open_read_only()
                self._execute("PRAGMA trusted_schema = OFF")
                self._execute("PRAGMA foreign_keys = ON")
                self._execute("PRAGMA synchronous = FULL")
                if create:
                    self._execute("PRAGMA journal_mode = WAL")
                else:
                    self._check_format()
            # The files that SQLite has open now.
            self._files = {f: _inode(f) for f in (path, self._wal) if f.is_file()}
            if not create:
                if check:
                    self.check()
                self.campaign_id = str(self.settings().get("id"))
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()
            if self._copy is not None:
                self._copy.cleanup()

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        return sqlite3.connect(
            path,
            timeout=self._wait,
            isolation_level=None,
            check_same_thread=False,
            uri=isinstance(path, str),
        )

    def _is_writable(self) -> bool:
        """Whether SQLite can make the files that it needs, also to read."""
        try:
            self._execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError as error:
            return "locked" in str(error)  # by another process
        return True

    def _open_read_only(self) -> None:
        """Open the log on a medium that is full, or that nothing can be written to."""
        _logger.info("%s cannot be written to", self.path)
        self._connection.close()
        self.read_only = True
        if not self._wal.is_file() or not self._wal.stat().st_size:
            self._connection = self._connect(f"{self._uri}?immutable=1")
        else:  # the latest changes are there
            self._connection = self._connect(self.path)
            self._execute("PRAGMA locking_mode = EXCLUSIVE")  # takes no other file
            if not self._is_writable():
                self._connection.close()
                self._copy = tempfile.TemporaryDirectory(prefix="skadma-")
                place = Path(self._copy.name, self.path.name)
                shutil.copyfile(self.path, place)
                shutil.copyfile(self._wal, place.with_name(self._wal.name))
                self._connection = self._connect(place)
        self._execute("PRAGMA query_only = ON")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything or nothing, before or after other processes' writes.

        CampaignError if the file is not at its path any more.
        """
        with self._turn, self._translated():
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._add_digests()
                self._check_place()
                self._execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise
            self._check_place(written=True)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read one state of the log, whatever other processes write meanwhile.

        Within another reading or a transaction, that one goes on.
        """
        with self._turn, self._translated():
            if self._connection.in_transaction:
                yield
                return
            self._check_place()
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")

    def locked(self, task: str) -> AbstractContextManager[None]:
        """Be the only process that queries or trains: see :func:`campaign_lock`."""
        if self.read_only or not os.access(self.path, os.W_OK):
            return nullcontext()  # what is written fails, what only reads goes on
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
        settings = {**settings, "id": self.campaign_id}
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

    # --- damage, and files that were replaced ---------------------------------

    def _digests(self, first: int) -> Iterator[tuple[int, str]]:
        """Compute the digest of each event from `first` on with its rows."""
        groups: dict[str, Iterator[tuple[int, Iterator[tuple[Any, ...]]]]] = {}
        for table, (event, order) in _OF_EVENTS.items():
            rows = self._execute(
                f"SELECT {event}, * FROM {table} WHERE {event} >= ? "
                f"ORDER BY {event}, {order}",
                first,
            )
            groups[table] = itertools.groupby(rows, key=operator.itemgetter(0))
        following = {table: next(found, None) for table, found in groups.items()}
        while (at := following["events"]) is not None:
            digest = hashlib.sha256()
            for table, found in groups.items():
                digest.update(table.encode())
                while (group := following[table]) and group[0] <= at[0]:
                    digest.update(json.dumps([*group[1]]).encode())
                    following[table] = next(found, None)
            yield at[0], digest.hexdigest()

    def _first_digest(self) -> str:
        """Compute the digest with which the chain begins, that of the settings."""
        return _chain("", json.dumps(self.rows("SELECT * FROM settings ORDER BY name")))

    def _add_digests(self) -> None:
        """Write the digests of the events that have none yet."""
        last = self.rows("SELECT * FROM digests ORDER BY event DESC LIMIT 1")
        self._written = last[0] if last else (0, self._first_digest())
        for event, digest in [*self._digests(self._written[0] + 1)]:
            self._written = event, _chain(self._written[1], digest)
            self.add("digests", [self._written])

    def check(self) -> None:
        """Raise if rows were changed; cheap where nobody wrote since the last time."""
        ((version,),) = self.rows("PRAGMA data_version")
        if version != self._checked:
            for damage in self.find_damage():
                raise self._damaged(f"{damage}. 'skadma check' lists all damage")
            self._checked = version

    def find_damage(self) -> list[str]:
        """Name the events that, or whose rows, are not as they were written."""
        with self.reading(), self.intact():
            found = [
                f"the file is damaged: {problem}"
                for (problem,) in self.rows("PRAGMA integrity_check(10)")
                if problem != "ok"
            ]
            if self.rows("PRAGMA foreign_key_check"):
                found.append("rows refer to rows that are not there")
            written = dict(self.rows("SELECT * FROM digests"))
            events = dict(self.rows("SELECT id, kind || ' by ' || who FROM events"))
            ((last,),) = self.rows("SELECT max(seq) FROM sqlite_sequence")
            gap = next(n for n in itertools.count(1) if n not in events)
            if gap <= max([last or 0, *written, *events]):
                found.append(f"event {gap} is not there any more")
            before = self._first_digest()
            for event, digest in self._digests(-(2**63)):
                if written.get(event) != _chain(before, digest):
                    what = " the settings," if event == 1 else ""
                    found.append(
                        f"event {event} ({events[event]}),{what} or rows of it were "
                        "changed after they were written"
                    )
                before = written.get(event, "")
        return found

    def _check_place(self, *, written: bool = False) -> None:
        """Raise if the files at the path are not those that were opened.

        With `written`, what was written last must be found there.
        """
        try:
            if any(_inode(file) != inode for file, inode in self._files.items()):
                happened = "another file is in its place"
            elif written and not self._is_found(*self._written):
                happened = "something was written over it"
                self._files[self.path] = -1, -1  # what is in memory is of no use now
            else:
                return
        except OSError as error:
            happened = f"it cannot be found there ({error})"
        raise CampaignError(
            f"The campaign's file {str(self.path)!r} was replaced or removed while it "
            f"was open, as by a backup or a sync: {happened}. Nothing is recorded any "
            "more. Put the right folder there, then open the campaign again."
        )

    def _is_found(self, event: int, digest: str) -> bool:
        """Whether somebody who opens the path finds this campaign, and a digest."""
        uri = f"{self._uri}?mode=rw"
        statement = (
            "SELECT sha256, value FROM digests, settings WHERE event = ? AND name = ?"
        )
        ours = digest, json.dumps(self.campaign_id)
        try:
            with closing(sqlite3.connect(uri, timeout=self._wait, uri=True)) as other:
                row = other.execute(statement, (event, "id")).fetchone()
                found = bool(row == ours)
        except sqlite3.Error:
            return False
        with self._wal.open("rb") as wal:  # its first bytes are lost if it was emptied
            return found and wal.read(3) in (b"", b"\x37\x7f\x06")

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
            if "decode" in message:
                raise self._damaged("it has text that is none") from error
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

    def _check_format(self) -> None:
        """Refuse a file that is another program's, or has other tables.

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


@contextmanager
def campaign_lock(folder: Path, wait: float, task: str) -> Iterator[None]:
    """Be the only process that queries or trains; the lock ends with the process.

    Raises CampaignBusyError if another process holds it for longer than `wait` seconds.
    """
    note = folder / "campaign.lock.txt"
    lock = filelock.FileLock(folder / "campaign.lock")
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout as error:
        holder = "another process"
        with suppress(OSError):
            holder = note.read_text("utf-8")
        raise CampaignBusyError(
            f"{holder} works on the campaign and did not end in {wait:g} s. "
            "What was decided is safe; try again later."
        ) from error
    try:
        with suppress(OSError):  # a full disk; the note only serves a message
            note.write_text(f"'{task}' in process {os.getpid()}", "utf-8")
        yield
    finally:
        lock.release()


def refuse_existing(path: Path) -> None:
    """Refuse a file with a campaign, but not one whose start was broken off."""
    if not path.exists():
        return
    with closing(EventLog(path, create=True)) as log:
        if log.has_tables():
            raise CampaignError(
                f"There is a campaign in {str(path.parent)!r} already. Go on with it, "
                "or start another one in another folder."
            )


def _chain(before: str, digest: str) -> str:
    return hashlib.sha256(f"{before} {digest}".encode()).hexdigest()


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return "unknown"
