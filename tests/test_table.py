"""Tables of embeddings that were made elsewhere, and probes of them."""

import base64
import csv
import io
import json
import zlib

import numpy as np
import pytest

from skadma import ProbeClassifier
from skadma.features.table import TableError, read_table
from skadma.persistence import ModelError, load_probe
from skadma.persistence.card import CardFacts
from skadma.persistence.probe import save_probe

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
PATHS = ["a/0.png", "a/1.png", "b/2.png", "b/3.png", "c.png", "é.png"]


def fiftyone(rows, paths):
    """What a FiftyOneDataset is exported as: a vector is a compressed .npy."""

    def binary(row):
        file = io.BytesIO()
        np.save(file, row, allow_pickle=False)
        text = base64.b64encode(zlib.compress(file.getvalue())).decode()
        return {"$binary": {"base64": text, "subType": "00"}}

    samples = [
        {"_id": {"$oid": "0"}, "filepath": f"data/{path}", "tags": [], "_rand": 0.5,
         "_media_type": "image", "metadata": None, "clip": binary(row)}
        for path, row in zip(paths, rows, strict=True)
    ]  # fmt: skip
    return json.dumps({"samples": samples})


def write(folder, kind, rows=ROWS, paths=PATHS):
    file = folder / f"clip.{kind.partition(' ')[0]}"
    if kind.startswith("npy"):
        np.save(file, rows)
        if kind == "npy with paths":
            file.with_suffix(".txt").write_text("\n".join(paths), "utf-8")
    elif kind == "npz":
        np.savez(file, embeddings=rows, paths=paths, n_epochs=np.zeros(3))
    elif kind == "csv":  # Lightly's
        with file.open("w", newline="", encoding="utf-8") as lines:
            names = [f"embedding_{i}" for i in range(rows.shape[1])]
            csv.writer(lines).writerows(
                [["filenames", *names, "labels"]]
                + [[p, *map(str, r), 0] for p, r in zip(paths, rows, strict=True)]
            )
    elif kind == "json":
        file.write_text(fiftyone(rows, paths), "utf-8")
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {"image": paths, "embedding": rows.tolist(), "split": ["x"] * 6}
        parquet.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize(
    "kind", ["npy", "npy with paths", "npz", "csv", "json", "parquet"]
)
@pytest.mark.filterwarnings("ignore:The rows of")
def test_what_is_read(kind, tmp_path):
    table = read_table(write(tmp_path, kind))
    assert (table.name, table.rows.dtype) == ("clip", np.float32)
    assert table.paths is None if kind == "npy" else len(table.paths) == 6
    images = sorted(PATHS)
    found = table.rows[table.match(images)]
    expected = ROWS[[PATHS.index(p) for p in images]] if kind != "npy" else ROWS
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_how_paths_are_written(tmp_path):
    """Whole ones of another machine, Windows' ones, other forms of a letter."""
    for form in ("/home/x/photos/{}", "D:\\photos\\{}", "./{}"):
        paths = [form.format(path).replace("é", "e\u0301") for path in PATHS]
        if "\\" in form:
            paths = [path.replace("/", "\\") for path in paths]
        table = read_table(write(tmp_path, "npz", paths=paths))
        np.testing.assert_array_equal(table.match(PATHS), np.arange(6))
    with pytest.warns(UserWarning) as caught:
        found = table.match(["a/0.png", "new.png"])
    assert found.tolist() == [0, -1]
    assert "1 images have no row and are left out (['new.png'])" in str(
        caught[0].message
    )
    assert "5 rows no image" in str(caught[1].message)
    with pytest.raises(TableError, match=r"No path in .* one here 'x.png'"):
        table.match(["x.png"])


def test_two_images_do_not_share_a_row(tmp_path):
    table = read_table(write(tmp_path, "npz", paths=[*PATHS[:5], "café.png"]))
    both = [*PATHS[:5], "cafe\u0301.png", "café.png"]
    with pytest.raises(TableError, match="has one row for .*Rename one of them"):
        table.match(both)


def test_rows_by_order_say_which(tmp_path):
    table = read_table(write(tmp_path, "npy"))
    with pytest.warns(UserWarning, match="of the 6 images, sorted by path, from 'a/0"):
        table.match(PATHS)
    with pytest.raises(TableError, match=r"6 rows without paths.*of the 5 images"):
        table.match(PATHS[:5])


def test_what_is_refused(tmp_path):
    wrong = ROWS.copy()
    wrong[2, 1] = np.nan
    huge = ROWS.astype(np.float64) * 1e300
    for kind, rows, paths, what in (
        ("npz", wrong, PATHS, "1 rows have NaN or inf, the first is b/2.png"),
        ("npy", wrong, PATHS, "the first is number 2"),
        ("npz", huge, PATHS, "6 rows have NaN or inf"),
        ("npz", ROWS, [*PATHS[:5], "./c.png"], "1 paths come twice, the first is c"),
        ("npz", ROWS, PATHS[:5], "6 rows and 5 paths"),
        ("npz", ROWS[:0], PATHS[:0], "name one column|of shape"),
        ("npy", ROWS[0], PATHS, r"of shape \(4,\)"),
        ("npy", np.array([["x"]]), PATHS, "it is <U1"),
        ("npy", np.array([[print]]), PATHS, "allow_pickle=False"),
        ("npz", np.array([[print]]), PATHS, "allow_pickle=False"),
    ):
        with pytest.raises(TableError, match=f"{what}(.|\n)*one row of finite"):
            read_table(write(tmp_path, kind, rows, paths))
    file = write(tmp_path, "csv")
    text = file.read_text("utf-8")
    for other in (text.replace(",0\n", ",x,0\n", 1), "a,b\n", text[:-40], "\0", ""):
        file.write_text(other, "utf-8")
        with pytest.raises(TableError, match="cannot be taken"):
            read_table(file)
    for name, what in (("no.npz", "is not there"), ("x.pkl", r"\.npy, \.npz")):
        with pytest.raises((TableError, FileNotFoundError), match=what):
            read_table(tmp_path / name)
    table = read_table(write(tmp_path, "npz"), "dinov2")
    for name, width in (("clip", 4), ("dinov2", 5)):
        with pytest.raises(TableError, match=f"the model has .*{name}.* of {width}"):
            table.check(name, width, "the model")


def test_a_probe_that_is_handed_on(tmp_path):
    y = np.array(["ok", "crack"] * 3)
    probe = ProbeClassifier().fit(ROWS, y)
    facts = CardFacts("tiles", {"ok": 3, "crack": 3})
    save_probe(probe, tmp_path / "model", "clip", facts)
    loaded, name = load_probe(tmp_path / "model")
    assert name == "clip"
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), probe.predict_proba(ROWS))
    assert loaded.predict(ROWS).tolist() == probe.predict(ROWS).tolist()
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "classifier of embeddings that were made elsewhere" in card
    assert 'base_model: "clip"' in card
    with pytest.raises(ModelError, match="already"):
        save_probe(probe, tmp_path / "model", "clip", facts)
    save_probe(probe, tmp_path / "model", "clip", facts, overwrite=True)
    data = bytearray((tmp_path / "model" / "model.json").read_bytes())
    data[data.index(b".") + 1] ^= 1
    (tmp_path / "model" / "model.json").write_bytes(data)
    with pytest.raises(ModelError, match="damaged or changed"):
        load_probe(tmp_path / "model")
    with pytest.raises(ModelError, match="no intact"):
        load_probe(tmp_path)
