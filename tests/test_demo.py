"""What the README's command runs, with small numbers."""

import csv

from skadma.bench.demo import run_demo


def test_demo(tmp_path, capsys):
    out = tmp_path / "out"
    run_demo(out, n_rounds=2, n_instances=10, n_pool=40, n_test=30, seeds=[1])
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
