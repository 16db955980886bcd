"""The command of the README, with small numbers."""

import csv

import pytest

from skadma.cli import main


def test_demo(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = "demo --rounds 2 --labels 10 --pool 40 --test 30 --seed 1 --out"
    assert main([*arguments.split(), str(out)]) == 0
    printed = capsys.readouterr().out
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["n_labels"]) for row in rows] == [
        (name, labels)
        for name in ("UncertaintyHerding", "random", "ADMA")
        for labels in ("10", "20")
    ]  # fmt: skip
    for row in rows:
        assert 0 <= float(row["accuracy"]) <= 1
        assert 0 <= float(row["auc"]) <= 1
        assert float(row["fit_seconds"]) > 0
        assert f"{float(row['accuracy']):.3f}" in printed
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "does not show" in printed
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "results.csv"]


def test_impossible_numbers(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--pool", "9999", "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    assert "do not fit 2624 photographs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["demo", "--rounds", "0"])
    assert "0 is not at least 1" in capsys.readouterr().err
