"""The command line itself: quick help, outputs checked first, no tracebacks."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.cli import main, make_parser
from skadma.strategies import MarginSampling

CLASSES = ["dark", "bright"]
SLOW = ("torch", "torchvision", "sklearn", "skorch", "pandas", "scipy", "matplotlib")
CLASSIFIER = {"weights": None, "image_size": 32, "max_epochs": 1}


def commands(parser=None, before=()):
    """Every command with its subcommands, as words."""
    for action in (parser or make_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*before, name)
                yield from commands(below, (*before, name))


def imports_of(calls, cwd=None):
    """What commands said, and which slow packages they imported."""
    run = f"""if True:
        import contextlib, io, sys
        from skadma.cli import main
        for call in {calls!r}:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                try:
                    main(call)
                except SystemExit as end:
                    assert not end.code, call
            assert out.getvalue(), call
        print(out.getvalue())
        print([name for name in {SLOW!r} if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", run], check=True, capture_output=True,
                          text=True, cwd=cwd)  # fmt: skip
    *said, slow = done.stdout.splitlines()
    return "\n".join(said), slow


def test_version_and_help_import_nothing_slow():
    """Of every command; each would take seconds, and half a gigabyte."""
    calls = [["--version"], ["--help"], *([*words, "--help"] for words in commands())]
    assert len(calls) > 30
    assert imports_of(calls)[1] == "[]"


def ends(capsys, *arguments):
    """The message of a command that is refused."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert said
    return said


# --- outputs -----------------------------------------------------------------------


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 120, (32, 32, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def campaign(pool, tmp_path, monkeypatch):
    """A campaign of four labels in the folder skadma-campaign, which is the default."""
    monkeypatch.chdir(tmp_path)
    with Campaign.create(
        "skadma-campaign", pool, CLASSES,
        CNNClassifier("squeezenet1_1", **CLASSIFIER), MarginSampling(), n_instances=4,
    ) as campaign:  # fmt: skip
        labels = {f"{i:02}.png": CLASSES[i % 2] for i in range(4)}
        campaign.teach(labels, train=False)
    return tmp_path / "skadma-campaign"


def test_what_needs_no_network_imports_nothing_slow(campaign, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n04.png,dark\n05.png,bright\n")
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "photos" / "00.png", tmp_path / "more")
    calls = [
        "teach labels.csv --later", "relabel 04.png bright", "skip 06.png",
        "cant-tell 07.png", "undo", "confirm 01.png", "repeats --share 1 -o again.csv",
        "agreement", "classes add other", "classes rename dark black",
        "classes merge other black --into black", "pool add more", "check",
        "export -o decisions.csv", "export --log -o log.json", "report -o report.html",
        "status",
    ]  # fmt: skip
    said, slow = imports_of([call.split() for call in calls], tmp_path)
    assert "labelled     6 (black: 2, bright: 4)" in said
    assert slow == "[]"


OUTPUTS = {
    "query": ["query"],
    "repeats": ["repeats"],
    "suspects": ["suspects"],
    "draw": ["evaluate", "--draw", "4", "--method", "random"],
    "pending": ["evaluate"],
    "export": ["export"],
    "log": ["export", "--log"],
    "tasks": ["export", "--to", "label-studio"],
    "report": ["report"],
    "predict": ["predict", "photos", "--campaign", "skadma-campaign"],
    "model": ["export-model", "--no-calibration"],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_missing_folders_are_made(name, campaign, tmp_path):
    if name == "pending":
        main([*OUTPUTS["draw"], "-o", "drawn.csv"])
    out = tmp_path / "not" / "there" / "out.file"
    assert main([*OUTPUTS[name], "-o", str(out)]) == 0
    assert out.exists()
    left = {path.name for path in out.parent.iterdir()}
    assert left == {"out.file"}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_checked_before_the_work(name, campaign, tmp_path, capsys):
    """Nothing is chosen, drawn, trained or looked at for a file that cannot be."""
    (tmp_path / "file").write_text("labels of weeks")
    (tmp_path / "folder").mkdir()
    before = events(campaign)
    said = ends(capsys, *OUTPUTS[name], "-o", tmp_path / "file" / "out")
    assert "Nothing can be written" in said
    if name not in ("tasks", "model"):  # they write a folder
        Path("link").symlink_to("nowhere")  # renaming a file onto it would remove it
        for there in ("file", "link"):
            assert "--overwrite" in ends(capsys, *OUTPUTS[name], "-o", there)
        said = ends(capsys, *OUTPUTS[name], "-o", "folder", "--overwrite")
        assert "'folder' is a folder" in said
    assert (tmp_path / "file").read_text() == "labels of weeks"
    assert events(campaign) == before


def events(folder):
    with Campaign.open(folder) as campaign:
        return [event["kind"] for event in campaign.log()]


def test_outputs_of_other_commands(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    for command in (
        ["centers", "--synthesize", "-o", out],
        ["demo", "--out", out],
        ["bench", "run", "nowhere.json", "--out", out],
    ):
        assert ends(capsys, *command)


# --- what a campaign is started with --------------------------------------------------


@pytest.mark.parametrize(
    ("words", "backbone", "training"),
    [
        ([], "layers/shufflenet_v2_x0_5", "probe"),
        (["--training", "fine-tune"], "shufflenet_v2_x0_5", "fine-tune"),
        (["--warm-start"], "shufflenet_v2_x0_5", "fine-tune"),
        (["--strategy", "aift"], "shufflenet_v2_x0_5", "fine-tune"),
        (["--strategy", "aift", "--training", "probe"], "layers/shufflenet_v2_x0_5",
         "probe"),
    ],
)  # fmt: skip
def test_training(words, backbone, training, pool, tmp_path):
    start = ["start", pool, "--classes", *CLASSES, "--campaign", tmp_path / "c",
             "--backbone", "shufflenet_v2_x0_5", "--weights", "none", *words,
             "--set", "estimator__image_size=32"]  # fmt: skip
    assert main([str(word) for word in start]) == 0
    with Campaign.open(tmp_path / "c") as campaign:
        clf = campaign.estimator()
    assert (clf.backbone, clf.training) == (backbone, training)


def test_a_network_without_a_probe(pool, tmp_path, capsys):
    network = ["--backbone", "squeezenet1_1", "--weights", "none"]
    classes = ["--classes", *CLASSES, "--campaign", tmp_path / "c"]
    said = ends(capsys, "start", pool, *classes, *network)
    assert "--training fine-tune" in said


def test_ports(campaign, capsys):
    pytest.importorskip("uvicorn")
    for port in ("65536", "-1"):
        said = ends(capsys, "label", "--no-browser", "--port", port)
        assert f"Port {port} is taken or not allowed." in said
    assert "argument --port" in ends(capsys, "label", "--port", "80x")
    assert make_parser().parse_args(["label", "--port", "0"]).port == 0


# --- no traceback --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [
            "start",
            "photos",
            "--classes",
            "a",
            "b",
            "--set",
            "estimator__lr=" + "[" * 9999,
        ],
        ["start", "photos", "--classes", "a", "b", "--set", "strategy__lr=1"],
        ["start", "photos", "--classes", "a", "b", "--set", "estimator__lr"],
        ["start", "photos", "--classes", "a", "b", "--seed", "-1"],
        ["start", "photos", "--classes", "a", "b", "--strategy", "none"],
        ["start", "photos", "--classes", "a", "b", "--backbone", "none"],
        ["start", "photos", "--classes", "a", "b", "--weights", "nowhere.pth"],
        ["start", "photos", "--classes", "a", "a"],
        ["start", "nowhere", "--classes", "a", "b"],
        ["start", "photos/00.png", "--classes", "a", "b"],
        ["start", "photos", "--classes", "a", "b", "--centers", "photos/00.png"],
        ["status", "--campaign", "nowhere"],
        ["status", "--campaign", "photos/00.png"],
        ["status", "--pool", "nowhere=photos"],
        ["teach", "nowhere.csv"],
        ["teach", "photos"],
        ["teach", "photos/00.png"],
        ["teach", "deep.json"],
        ["relabel", "nowhere", "dark"],
        ["confirm", "00.png", "nowhere"],
        ["repeats", "--share", "nan", "-o", "out.csv"],
        ["repeats", "--share", "7", "-o", "out.csv"],
        ["evaluate", "--confidence", "2"],
        ["evaluate", "photos/00.png"],
        ["classes", "rename", "dark", "bright"],
        ["classes", "merge", "dark", "--into", ""],
        ["pool", "add", "photos"],
        ["predict", "photos", "--model", "photos", "-o", "out.csv"],
        ["predict", "photos", "--model", "photos/00.png", "-o", "out.csv"],
        ["export-model", "-o", "photos"],
        ["label", "--campaign", "photos"],
        ["bench", "run", "deep.json", "--out", "results"],
        ["bench", "report", "photos"],
        ["centers", "check", "photos/00.png"],
        ["centers", "make", "photos", "-o", "out.safetensors"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_no_traceback(words, campaign, pool, tmp_path, capsys):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    if words[0] == "start":
        words = [*words, "--campaign", "other"]
    assert "Traceback" not in ends(capsys, *words)


# --- what users and files say: a sentence, and nothing that a terminal obeys ----------

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202e"


def test_names_with_terminal_escapes(tmp_path, capsys):
    """Of files, classes and people: whatever is printed of them is escaped."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(6):
        image = Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8))
        image.save(photos / f"{i}{ESCAPES}.png")
    bad = f"bad{ESCAPES}"
    start = ["start", photos, "--classes", bad, "ok", "--weights", "none",
             "--backbone", "squeezenet1_1", "--strategy", "margin-sampling",
             "--training", "fine-tune",
             "--set", "estimator__image_size=32", "estimator__max_epochs=1",
    ]  # fmt: skip
    where = ["--campaign", tmp_path / "c", "--who", f"eva{ESCAPES}"]
    labels = tmp_path / "labels.csv"
    labels.write_text(f"path,label\n0{ESCAPES}.png,{bad}\nno{ESCAPES},x{ESCAPES}\n")
    said = []
    for command in (start, ["status"], ["undo"], ["agreement"],
                    ["teach", labels, "--partial", "--later"], ["teach", labels],
                    ["cant-tell", f"1{ESCAPES}.png"], ["undo"],
                    ["suspects", "-o", tmp_path / "s.csv"],
                    ["relabel", f"none{ESCAPES}", "ok"], ["classes", "add", bad],
                    ["classes", "rename", "ok", f"ok{ESCAPES}"], ["status", ESCAPES],
                    ["pool", "add", tmp_path / f"no{ESCAPES}"]):  # fmt: skip
        place = where if command is not start else [*where]
        with contextlib.suppress(SystemExit):
            main([str(word) for word in (*command, *place)])
        told = capsys.readouterr()
        said += [told.out, told.err]
    text = "".join(said)
    assert not set(text.replace("\n", "").replace("\t", "")) & set(ESCAPES) - set(
        "]0;title[2J31m"
    )
    assert "\\x1b[2J" in text and "\\x9b31m" in text and "\\u202e" in text
    assert "Traceback" not in text


def test_paths_that_lead_nowhere(campaign, tmp_path, capsys):
    """A link to itself, a name that is too long: a sentence each."""
    loop, long = tmp_path / "loop", "x" * 300
    loop.symlink_to(loop)
    cases = (
        ["pool", "add", loop], ["pool", "add", long], ["pool", "add", loop / "inside"],
        ["status", "--pool", f"a={long}"], ["status", "--pool", long],
        ["status", "--pool", loop], ["status", "--campaign", long],
        ["status", "--campaign", loop], ["label", loop, "--classes", "a", "b"],
        ["label", "--campaign", loop], ["label", "--campaign", long],
        ["start", loop, "--classes", "a", "b", "--campaign", tmp_path / "new"],
        ["start", long, "--classes", "a", "b", "--campaign", tmp_path / "new"],
        ["teach", loop], ["teach", long], ["export", "-o", loop / "x"],
        ["export", "-o", long],
        ["predict", loop, "-o", tmp_path / "o.csv", "--campaign", loop],
        ["predict", long, "-o", long, "--model", long],
        ["predict", loop, "-o", tmp_path / "o.csv", "--model", loop],
        ["export-model", "-o", loop / "x"], ["report", "-o", loop / "r.html"],
        ["bench", "run", loop, "--out", tmp_path / "b"], ["bench", "report", loop],
    )  # fmt: skip
    for words in cases:
        with contextlib.suppress(SystemExit):  # what only reads may go on
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert said.startswith("skadma "), words
        assert "not foreseen" not in said and "Traceback" not in said, (words, said)


def test_what_is_meant_is_asked_or_guessed(
    campaign, pool, tmp_path, monkeypatch, capsys
):
    """Another case, a typing error, commas; classes are asked for at a terminal."""
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{i:02}.png,BRIGHT\n" for i in range(9)))
    assert main(["teach", "labels.csv", "--later"]) == 0
    said = capsys.readouterr()
    assert said.out == "Saved 5 labels, changed 2; 2 are as before.\n"
    assert said.err.count("'BRIGHT' is taken for the class 'bright'.") == 1
    table.write_text("path,label\n09.png,brigth\n")
    assert "Did you mean 'bright'?" in ends(capsys, "teach", "labels.csv")
    with Campaign.open(campaign) as opened:  # the class that had the name then
        n = opened.last_event
        opened.rename_class("bright", "light")
        opened.add_classes(["bright"])
        table.write_text(f"path,label,as_of\n09.png,Bright,{n}\n")
        with pytest.warns(UserWarning, match="is taken for"):
            opened.teach(table, train=False)
        held = {path: decision.label for path, decision, _ in opened.decisions()}
        assert held["09.png"] == "light"

    assert "Did you mean 'photos'?" in ends(capsys, "start", "photo", "--classes", "a")
    for name in ("cat", "dog"):
        (pool / name).mkdir()
    start = ["start", "photos", "--campaign", "new", "--backbone", "squeezenet1_1",
             "--weights", "none", "--strategy", "MarginSampling",
             "--training", "fine-tune"]  # fmt: skip
    assert "such as cat, dog? Name them with --classes." in ends(capsys, *start)
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"ant, bee\n")
    with open(terminal) as asked:  # noqa: PTH123 (closed with it)
        monkeypatch.setattr(sys, "stdin", asked)
        assert main(start) == 0
    os.close(keyboard)
    said = capsys.readouterr()
    assert "Which labels are there, such as cat, dog?" in said.out
    assert "(ant: 0, bee: 0)" in said.out
    assert "The classes are taken to be ant, bee." in said.err


def test_help_has_each_command_in_a_group(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    groups = capsys.readouterr().out.split("\n\n")[-4:]
    heads = [group.split("\n")[0] for group in groups]
    assert heads == ["Label:", "Check:", "Use:", "Expert:"]
    listed = [
        line.split()[0] for group in groups for line in group.split("\n")[1:] if line
    ]
    assert sorted(listed) == sorted(words[0] for words in commands() if len(words) == 1)


@pytest.mark.filterwarnings("always")
def test_a_warning_is_shown_once(campaign, pool, tmp_path, capsys):
    """A command looks at the images several times; that of no labels is a sentence."""
    (pool / "gone.png").symlink_to("nowhere")
    (tmp_path / "labels.csv").write_text("path,label\n05.png,bright\n")
    for words in (["report", "-o", "r.html"], ["teach", "labels.csv"],
                  ["predict", "photos", "--campaign", "skadma-campaign", "-o", "p.csv"],
    ):  # fmt: skip
        assert main(words) == 0
        assert capsys.readouterr().err.count("'gone.png' is left out") == 1, words
    for words in (["undo"], ["undo"], ["suspects", "-o", "s.csv"]):
        assert main(words) == 0
    said = capsys.readouterr().err
    assert "Labels so far: none." in said and "{}" not in said


def test_what_is_not_foreseen_says_where_to_report_it(campaign, monkeypatch, capsys):
    def fail(*_):
        raise KeyError(f"no such thing {ESCAPES}")

    monkeypatch.setattr("skadma.cli._campaign._status", fail)
    said = ends(capsys, "status")
    assert "Traceback" not in said and "\x1b" not in said
    report = said.partition("with the file ")[2].partition(",")[0]
    text = Path(report).read_text("utf-8")
    assert text.startswith("Traceback") and "no such thing" in text
    Path(report).unlink()


def test_threads_of_the_commands_wait_without_spinning():
    """Unless the environment says otherwise."""
    code = "import os, skadma.cli; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        env |= {"OMP_WAIT_POLICY": given} if given else {}
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, env=env, capture_output=True, text=True)
        assert found.stdout.strip() == expected, found.stderr
