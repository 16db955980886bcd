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

from .schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, SCHEMAS, upgrade_statements


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

    def add_event(self, kind: str, *, who: str | None = None, **detail: Any) -> int:
        """Write an event down, within a transaction.

        Parameters
        ----------
        kind : str
        who : str, optional
            Whose it is, if not the store's `who`.
        **detail
            Plain values.

        Returns
        -------
        int
            Its number.
        """
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
        expected = set(SCHEMAS.get(version, ()))
        if application != APPLICATION_ID or statements != expected:
            raise self._no_campaign("it has other tables than a campaign has")
        damage = self._execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise self._no_campaign(damage)
        if self._execute("PRAGMA foreign_key_check").fetchone():
            raise self._no_campaign("rows refer to rows that are not there")
        if version < SCHEMA_VERSION:
            self._upgrade()

    def _upgrade(self) -> None:
        """Give the file of an older skadma the present tables; all rows stay."""
        self._execute("PRAGMA temp_store = MEMORY")
        self._execute("PRAGMA foreign_keys = OFF")
        with self.transaction():
            ((version,),) = self._execute("PRAGMA user_version")
            if version < SCHEMA_VERSION:  # or another process was faster
                for step in upgrade_statements(version):
                    self._execute(step)
        self._execute("PRAGMA foreign_keys = ON")


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
