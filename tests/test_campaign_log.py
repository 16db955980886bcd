"""The event log: damage is named, nothing is recorded in a file that was replaced."""

# ruff: noqa: F811

import os
import shutil
import signal
import sys

import pytest

from skadma import Campaign, CNNClassifier
from skadma._utils import tables
from skadma.cli import main
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.check import find_problems
from skadma.labelling.campaign.event_log import EventLog
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.strategies import MarginSampling

# pytest finds the fixtures by their names here
from .changing_campaign import (  # noqa: F401
    campaign,
    create,
    label,
    marks,
    painted,
    pool,
)
from .conftest import TinyCNN
from .forged import change_log

try:
    import resource
except ImportError:  # Windows
    resource = None

# --- damage ---------------------------------------------------------------------------


@pytest.fixture
def rich(campaign, tmp_path):
    """A closed campaign with rows in each table."""
    label(campaign, 0, 1, 2)
    campaign.query()
    campaign.teach({"00.png": "green"}, blind=True)
    campaign.audits.draw(2, method="random")
    campaign.rename_class("red", "rose")
    label_of = {"03.png": "rose", "04.png": "green"}
    left = {path: mark for path, mark in label_of.items()
            if path in campaign.candidates()}  # fmt: skip
    campaign.teach(left or {campaign.candidates()[0]: "green"}, train=False)
    campaign.close()
    return campaign.folder


CHANGES = {
    "UPDATE decisions SET label = 'green' WHERE label = 'blue'": 2,
    "UPDATE decisions SET label = 'purple' WHERE label = 'blue'": 2,
    "UPDATE decisions SET kind = 'skip', label = NULL WHERE label = 'blue'": 2,
    "UPDATE decisions SET image = image + 1 WHERE image = 3": 2,
    "DELETE FROM decisions WHERE label = 'blue'": 2,
    "UPDATE contents SET sha256 = '0' || substr(sha256, 2) WHERE image = 5": 1,
    "UPDATE contents SET size = size + 1 WHERE image = 5": 1,
    "UPDATE images SET path = 'x.png' WHERE id = 4": 1,
    "UPDATE settings SET value = '7' WHERE name = 'n_instances'": 1,
    "UPDATE settings SET value = '\"0\"' WHERE name = 'id'": 1,
    "UPDATE proposals SET guess = 'red' WHERE guess != 'red'": 4,
    "UPDATE proposals SET score = score + 1e-9": 4,
    "UPDATE other_answers SET label = 'blue'": 5,
    "UPDATE draws SET stratum_size = 50": 6,
    "UPDATE events SET who = 'max' WHERE id = 2": 2,
    "UPDATE events SET at = '2001-01-01T00:00:00.000+00:00' WHERE id = 2": 2,
    "UPDATE events SET detail = replace(detail, 'rose', 'rise') WHERE id = 7": 7,
    "UPDATE digests SET sha256 = '0' || substr(sha256, 2) WHERE event = 2": 2,
    "INSERT INTO decisions SELECT event, 9, sha256, kind, label FROM decisions "
    "WHERE image = 1": 2,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change, rich, capsys):
    main(["check", "--campaign", str(rich)])
    assert "is intact" in capsys.readouterr().out
    change_log(rich, change, signed=False)
    with pytest.raises(
        CampaignError, match=rf"event {CHANGES[change]} \(\w+ by .* were"
    ):
        Campaign.open(rich, backbone=TinyCNN)
    with pytest.raises(SystemExit):
        main(["check", "--campaign", str(rich)])
    assert f"event {CHANGES[change]} (" in capsys.readouterr().err


def test_the_last_event_is_missing(rich):
    last = "(SELECT max(id) FROM events)"
    change_log(
        rich,
        *(f"DELETE FROM {table} WHERE event = {last}" for table in
          ("decisions", "digests", "contents")),
        f"DELETE FROM events WHERE id = {last}",
        signed=False,
    )  # fmt: skip
    with pytest.raises(CampaignError, match=r"event 8 is not there any more"):
        Campaign.open(rich, backbone=TinyCNN)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sqlite_sequence SET seq = 9000000000000000000",
        "INSERT INTO events VALUES (8000000000000000000, 'x', 'x', 'scan', '{}')",
        "INSERT INTO events VALUES (-7, 'x', 'x', 'scan', '{}')",
    ],
)
def test_numbers_of_events_that_no_log_has(change, rich):
    """Told at once, whatever their size."""
    change_log(rich, change, signed=False)
    with pytest.raises(CampaignError, match="no intact campaign"):
        Campaign.open(rich, backbone=TinyCNN)


def test_a_change_while_the_campaign_is_open(campaign):
    label(campaign, 0, 1, 2)
    assert campaign.status().labels == {"blue": 1, "green": 1, "red": 1}
    change = "UPDATE decisions SET label = 'red' WHERE label = 'blue'"
    change_log(campaign.folder, change, signed=False)
    with pytest.raises(CampaignError, match="event 2 "):
        campaign.status()


FORGED = {
    "UPDATE decisions SET label = 'purple' WHERE label = 'blue'":
        "'02.png': 'purple' is no class",
    "UPDATE decisions SET label = 'rose' WHERE label = 'red'":  # it is one later
        "'00.png': 'rose' is no class",
    "UPDATE other_answers SET label = 'x'": "'00.png': 'x' is no class",
    "UPDATE proposals SET guess = 'x' WHERE place = 0": "'x' is no class",
    "DELETE FROM decisions WHERE label = 'blue'": "2 decisions, and not 3",
    "DELETE FROM proposals WHERE place = 0": "2 proposals, and not 3",
    "DELETE FROM draws WHERE place = 0": "1 draws, and not 2",
    "UPDATE events SET kind = 'repeat' WHERE id = 2": "3 decisions, and not 0",
    "UPDATE decisions SET sha256 = '0' || substr(sha256, 2), image = 1 "
    "WHERE label = 'blue'": "was never there",
    "INSERT INTO events (at, who, kind, detail) VALUES "
    "('2030-01-01', 'x', 'undo', '{\"undone\": 4}')": "takes back 4, which does not",
    "INSERT INTO events (at, who, kind, detail) VALUES "
    "('2030-01-01', 'x', 'release', '{\"audits\": [2]}')": "which are no audits",
    "INSERT INTO events (at, who, kind, detail) VALUES "
    "('2030-01-01', 'x', 'classes', '{\"change\": \"add\"}')": "'names'",
}  # fmt: skip


@pytest.mark.parametrize("change", FORGED)
def test_a_contradiction_is_named_though_the_digests_fit(change, rich):
    assert find_problems(rich) == []
    if "image = 1" in change:
        change = change.replace("image = 1 ", "image = 12 ")
    change_log(rich, change)
    assert any(FORGED[change.replace("image = 12 ", "image = 1 ")] in problem
               for problem in find_problems(rich))  # fmt: skip


def test_bytes_that_are_changed(rich, tmp_path):
    """A byte at a time, in pages of all kinds: it is told, or it says nothing."""
    whole = (rich / "campaign.sqlite").read_bytes()
    with Campaign.open(rich, backbone=TinyCNN) as opened:
        expected = opened.decisions(), opened.log()
    told = 0
    used = [place for place, byte in enumerate(whole) if byte and place > 99]
    places = used[:: len(used) // 120]
    for place in places:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        changed = bytearray(whole)
        changed[place] ^= 1
        (folder / "campaign.sqlite").write_bytes(changed)
        try:
            with Campaign.open(folder, backbone=TinyCNN) as opened:
                assert (opened.decisions(), opened.log()) == expected
        except CampaignError:
            told += 1
    assert told > len(places) // 2


# --- files that are replaced ----------------------------------------------------------


def put_copy(folder):
    shutil.move(folder, folder.with_name("aside"))
    shutil.copytree(folder.with_name("aside"), folder)


def put_older_copy_over(folder):
    """As a sync that writes in place does."""
    copy = folder.with_name("older") / "campaign.sqlite"
    with (folder / "campaign.sqlite").open("r+b") as file:
        file.truncate(0)
        file.write(copy.read_bytes())
    (folder / "campaign.sqlite-wal").write_bytes(b"")


def put_other_campaign(folder):
    shutil.move(folder, folder.with_name("aside"))
    shutil.copytree(folder.with_name("other"), folder)


def put_other_campaign_over(folder):
    with (folder / "campaign.sqlite").open("r+b") as file:
        file.write((folder.with_name("other") / "campaign.sqlite").read_bytes())


REPLACE = {
    "another campaign, in place": put_other_campaign_over,
    "SQLite's log removed": lambda folder: (folder / "campaign.sqlite-wal").unlink(),
    "a copy": put_copy,
    "removed": lambda folder: shutil.rmtree(folder),
    "moved": lambda folder: shutil.move(folder, folder.with_name("aside")),
    "another campaign": put_other_campaign,
    "an older copy": put_older_copy_over,
}


@pytest.fixture
def open_one(campaign, pool):
    create(campaign.folder.with_name("other"), pool).close()
    campaign.close()
    shutil.copytree(campaign.folder, campaign.folder.with_name("older"))
    with Campaign.open(campaign.folder, backbone=TinyCNN) as again:
        label(again, 0, 1)
        yield again


@pytest.mark.parametrize("how", REPLACE)
def test_what_is_written_into_a_replaced_file_is_not_acknowledged(how, open_one):
    ledger = open_one.ledger()
    sha256 = next(sha for sha in ledger.available() if not ledger.decision(sha))
    REPLACE[how](open_one.folder)
    with pytest.raises(CampaignError, match="was replaced or removed while"):
        ledger.record([Operation("o" * 8, [Mark(sha256, "red")])])
    for call in (
        lambda: open_one.teach({"05.png": "red"}, train=False),
        lambda: open_one.rename_class("red", "rose"),
        open_one.undo,
    ):
        with pytest.raises(CampaignError):
            call()
    if how not in ("an older copy", "another campaign, in place"):
        with pytest.raises(CampaignError, match="was replaced or removed while"):
            open_one.status()


def test_a_copy_that_was_put_there_goes_on(open_one):
    """What was not acknowledged is recorded when it is sent to the copy."""
    ledger = open_one.ledger()
    sha256 = next(sha for sha in ledger.available() if not ledger.decision(sha))
    before = marks(open_one)
    operation = Operation("o" * 8, [Mark(sha256, "red")])
    put_copy(open_one.folder)
    with pytest.raises(CampaignError, match="was replaced or removed while"):
        ledger.record([operation])
    open_one.close()
    with Campaign.open(open_one.folder, backbone=TinyCNN) as again:
        assert marks(again) == before
        assert again.ledger().record([operation])[0].status == "recorded"
        assert len(marks(again)) == len(before) + 1


def test_a_file_replaced_between_the_commit_and_the_answer(open_one, monkeypatch):
    """The commit is in the removed file, so it is not acknowledged."""
    execute = EventLog._execute

    def commit_then_replace(self, statement, *values):
        found = execute(self, statement, *values)
        if statement == "COMMIT":
            monkeypatch.undo()
            shutil.move(open_one.folder, open_one.folder.with_name("aside"))
            shutil.copytree(open_one.folder.with_name("older"), open_one.folder)
        return found

    monkeypatch.setattr(EventLog, "_execute", commit_then_replace)
    with pytest.raises(CampaignError, match="was replaced or removed while"):
        open_one.teach({"05.png": "red"}, train=False)


def test_campaigns_have_ids_of_their_own(open_one):
    ids = []
    for folder in ("c", "older", "other"):
        path = open_one.folder.with_name(folder) / "campaign.sqlite"
        log = EventLog(path)
        ids.append(log.campaign_id)
        log.close()
    assert ids[0] == ids[1] != ids[2]


# --- where nothing can be written -----------------------------------------------------


def in_child(task):
    """Run something in a forked process; return what it prints and raises."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
        try:
            task()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def run_all(folder, commands):
    for command in commands:
        try:
            main([*command, "--campaign", str(folder), "--wait", "1"])
        except SystemExit as error:
            print("exit", error.code)


@pytest.fixture
def named(pool, tmp_path):
    """A campaign that commands can open: its network has a name."""
    network = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    arguments = (tmp_path / "c", pool, ["green", "red"], network, MarginSampling())
    with Campaign.create(*arguments) as campaign:
        campaign.teach({"00.png": "red", "01.png": "green"})
    return campaign.folder


READING = (["status"], ["check"], ["agreement"])


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_killed_export_leaves_nothing_for_good(named, tmp_path):
    out = tmp_path / "out.csv"

    def export_and_die():
        tables.csv.writer = lambda file: os.kill(os.getpid(), signal.SIGKILL)
        main(["export", "-o", str(out), "--campaign", str(named)])

    in_child(export_and_die)
    others = [tmp_path / f".out.csv.{pid}.1.part" for pid in (1, os.getpid())]
    for other in others:  # of processes that are running
        other.touch()
    assert len(list(tmp_path.glob(".out.csv.*.part"))) == 3
    main(["export", "-o", str(out), "--campaign", str(named)])
    assert sorted(tmp_path.glob(".*.part")) == sorted(others)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.skipif(resource is None, reason="no limits")
def test_an_error_of_a_full_disk_names_the_file(named, tmp_path):
    out = tmp_path / "out.csv"

    def export():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        run_all(named, [["export", "-o", str(out)]])

    assert f"File too large: {str(out)!r}" in in_child(export)
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("why", ["read-only", "full"])
def test_reading_goes_on_where_nothing_can_be_written(killed, why, named, tmp_path):
    """After a kill, the latest labels are in SQLite's log beside the file."""
    if killed:

        def teach_and_die():
            campaign = Campaign.open(tmp_path / "c")
            campaign.teach({"03.png": "red"})
            os.kill(os.getpid(), signal.SIGKILL)

        in_child(teach_and_die)
        assert (tmp_path / "c" / "campaign.sqlite-wal").stat().st_size
    if why == "full":
        # The system makes it anew, and it is the first that finds no room.
        (tmp_path / "c" / "campaign.sqlite-shm").unlink(missing_ok=True)
    out = tmp_path / "out"
    out.mkdir()
    for path in (tmp_path, *tmp_path.parents[:3], out):  # of pytest, and xdist
        path.chmod(0o777)
    reading = [*READING, ["export", "-o", str(out / "x.csv")],
               ["report", "-o", str(out / "r.html")]]  # fmt: skip
    writing = [["skip", "05.png"], ["undo"], ["classes", "add", "blue"]]

    def use():
        if why == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            run_all(tmp_path / "c", READING)
        else:
            for path in (tmp_path / "c", *(tmp_path / "c").rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            run_all(tmp_path / "c", reading)
        print("now writing")
        run_all(tmp_path / "c", writing)

    read, wrote = in_child(use).split("now writing")
    assert "exit" not in read and "Error" not in read, read
    assert "is intact" in read
    assert f"labelled     {3 if killed else 2} " in read
    if why == "read-only":
        assert len((out / "x.csv").read_text().splitlines()) == 3 + killed
    assert wrote.count("exit 1") == 3, wrote
    assert wrote.count(f"{str(tmp_path / 'c' / 'campaign.sqlite')!r} cannot be") == 3
