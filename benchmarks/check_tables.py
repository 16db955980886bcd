"""Compare the tables in the documentation with what the scripts print of results/.

    python benchmarks/check_tables.py

Each script prints its tables of the committed results, and computes nothing anew. A
table in the pages that has the same heading must have rows of it only. Two minutes on
one core. Not compared are tables of `skadma bench`, which `skadma bench report FOLDER`
arranges otherwise, and those of times and memory, which are in the JSON files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
Row = tuple[str, ...]
COMMANDS = {
    "bench_evaluation.py {results}/evaluation.csv --md": {"evaluation.md": 6},
    "bench_finish.py report {results}/finish.csv": {"evaluation.md": 2},
    "bench_left_out.py - --report": {"evaluation.md": 1, "campaign.md": 1},
    "bench_choice.py - {results}/choice.csv --report": {"campaign.md": 1},
    "bench_consensus.py - --report": {"campaign.md": 1},
    "bench_probe_table.py - {results}/probe_table.csv --report": {"training.md": 1},
    "bench_defaults.py - {results}/fine_tuning.csv fine-tuning --report": {
        "training.md": 1
    },
    "bench_curves.py - {results}/curves.csv --report": {"training.md": 1},
    "bench_defaults.py - {results}/batch_sizes.csv batches --report": {
        "what_was_tried.md": 1
    },
    "bench_defaults.py - {results}/networks.csv networks --report": {
        "what_was_tried.md": 1
    },
    "bench_rule_search.py - --report {results}/rule_search.csv": {
        "label_efficiency.md": 1
    },
    "bench_centers.py {results}/centers --report": {"user_guide.md": 1},
    "bench_adafilter.py report {results}/adafilter.csv": {"adafilter.md": 1},
    "bench_multilabel.py {results}/multilabel.csv --md": {"benchmarks.md": 1},
    "bench_multilabel.py {results}/multilabel_probe.csv --md": {"benchmarks.md": 1},
    "bench_end_to_end.py {results}/end_to_end.csv --md": {"../benchmarks/README.md": 3},
    "bench_sort.py {results}/sort.csv --report": {"end_to_end.md": 2},
    "bench_study.py - {work}/none.csv --report {work}": {"study.md": 3},
    "bench_study_networks.py - {results}/study_networks.csv --report": {"study.md": 2},
}
"""How many tables of a page each command prints."""


def tables(lines: Iterable[str]) -> list[list[Row]]:
    """Find the tables of a text, cell by cell, without emphasis and rulers."""
    found: list[list[Row]] = []
    inside = False
    for line in lines:
        if line.startswith("|"):
            plain = line.replace("**", "").replace(" %", "%").strip()
            cells = plain.strip("|").split("|")
            row = tuple(cell.strip() for cell in cells)
            if not inside:
                found.append([])
            if not all(cell and set(cell) <= set("-:") for cell in row):
                found[-1].append(row)
        inside = line.startswith("|")
    return found


def main() -> None:
    """Run all commands, and compare."""
    wrong = compared = 0
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(RESULTS / "study.csv", work)
        for command, pages in COMMANDS.items():
            words = command.format(results=RESULTS, work=work).split()
            run = [sys.executable, str(HERE / words[0]), *words[1:]]
            printed = subprocess.run(run, check=True, capture_output=True, text=True)
            text = printed.stdout
            if words[0] == "bench_study.py":
                text = Path(work, "study.md").read_text("utf-8")
            known: dict[Row, set[Row]] = {}
            for head, *rows in tables(text.splitlines()):
                known.setdefault(head, set()).update(rows)
            for page, n in pages.items():
                lines = (DOCS / page).read_text("utf-8").splitlines()
                mine = [table for table in tables(lines) if table[0] in known]
                if words[0] == "bench_multilabel.py":  # two tables with one heading
                    mine = [t for t in mine if t[1] in known[t[0]]]
                if len(mine) != n:
                    print(f"{page}: {len(mine)} tables of {n}, by {command}")
                    wrong += 1
                for head, *rows in mine:
                    compared += len(rows)
                    for row in rows:
                        if row not in known[head]:
                            print(f"{page}: | {' | '.join(row)} |, by {command}")
                            wrong += 1
    print(f"{compared} rows compared, {wrong} differences")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
