"""Campaigns' files of earlier versions: opened, brought up to date, nothing lost."""

import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from skadma import Campaign
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.event_log import Store
from skadma.labelling.campaign.schema import SCHEMA, SCHEMA_VERSION, SCHEMAS

from .conftest import TinyCNN
from .crash import Killer

DUMP = Path(__file__).with_name("data") / "campaign_schema_1.sql"
N_EVENTS = 8


def make_pool(folder):
    """The eight pictures of the campaign in the dump, to the byte."""
    folder.mkdir()
    for i in range(8):
        pixels = bytes((i * 29 + k * 7 * (1 + k % 3)) % 256 for k in range(768))
        (folder / f"{i}.ppm").write_bytes(b"P6 16 16 255\n" + pixels)


def load(path):
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text("utf-8"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def rows(path):
    connection = sqlite3.connect(path)
    tables = [s.split()[2] for s in SCHEMAS[1] if s.startswith("CREATE TABLE")]
    found = {t: connection.execute(f"SELECT * FROM {t}").fetchall() for t in tables}
    ((version,),) = connection.execute("PRAGMA user_version")
    statements = {
        sql
        for (sql,) in connection.execute("SELECT sql FROM sqlite_master")
        if sql and "sqlite_sequence" not in sql
    }
    connection.close()
    assert statements == set(SCHEMAS[version])
    return version, found


@pytest.fixture
def older(tmp_path):
    """A campaign that the first schema's skadma wrote, and its pool."""
    make_pool(tmp_path / "pool")
    (tmp_path / "c").mkdir()
    load(tmp_path / "c" / "campaign.sqlite")
    return tmp_path / "c"


def test_an_older_campaign_goes_on(older, tmp_path):
    path = older / "campaign.sqlite"
    version, before = rows(path)
    assert version == 1
    assert len(before["events"]) == N_EVENTS
    with Campaign.open(older, pool=tmp_path / "pool", backbone=TinyCNN) as campaign:
        assert rows(path) == (SCHEMA_VERSION, before)
        marks = {p: d.mark for p, d, _ in campaign.decisions()}
        assert marks == {
            "0.ppm": "a", "1.ppm": "a", "2.ppm": "?cant-tell", "4.ppm": "b",
            "5.ppm": "?skip",
        }  # fmt: skip
        assert campaign.undo() == ["4.ppm", "5.ppm"]
        assert [event["id"] for event in campaign.log()] == [*range(1, N_EVENTS + 2)]
        assert campaign._store.rows("PRAGMA foreign_keys") == [(1,)]
        with (
            pytest.raises(CampaignError, match="only ever adds"),
            campaign._store.transaction(),
        ):
            campaign._store._execute("DELETE FROM events")


def test_two_processes_bring_it_up_to_date(older):
    path = older / "campaign.sqlite"
    _, before = rows(path)
    first = sqlite3.connect(path, isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    with pytest.raises(CampaignError, match="Another process is writing"):
        Store(path, wait=0.1)
    first.execute("ROLLBACK")
    first.close()
    for _ in range(2):
        Store(path).close()
        assert rows(path) == (SCHEMA_VERSION, before)


def test_a_foreign_table_in_an_older_file(older):
    connection = sqlite3.connect(older / "campaign.sqlite")
    connection.execute("CREATE TABLE more (x)")
    connection.commit()
    connection.close()
    with pytest.raises(CampaignError, match="other tables"):
        Store(older / "campaign.sqlite")


def test_schema_2_in_an_older_file_is_refused(older):
    """Its number says which tables there must be."""
    connection = sqlite3.connect(older / "campaign.sqlite")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()
    assert set(SCHEMA) != set(SCHEMAS[1])
    with pytest.raises(CampaignError, match="other tables"):
        Store(older / "campaign.sqlite")


@pytest.mark.skipif(sys.platform == "win32", reason="kills forked processes")
def test_killed_at_each_line_of_the_upgrade(older):
    """The file is the old one or the new one, and opens."""
    path = older / "campaign.sqlite"
    _, before = rows(path)
    found = []
    for at in range(1, 1000):
        for old in older.iterdir():
            old.unlink()
        load(path)
        pid = os.fork()
        if pid == 0:
            Killer(at=at).start()
            Store(path).close()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        version, after = rows(path)
        assert after == before
        found.append(version)
        Store(path).close()
        assert rows(path) == (SCHEMA_VERSION, before)
        if not os.WIFSIGNALED(status):
            break
    assert os.WTERMSIG(status) != signal.SIGKILL  # the last one ran through
    assert found == sorted(found)
    assert set(found) == {1, SCHEMA_VERSION}
