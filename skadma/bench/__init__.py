"""Label efficiency: data sets x networks x strategies x seeds, measured in pairs."""

try:
    import matplotlib  # noqa: F401
    import pandas  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"skadma.bench needs {error.name}: pip install 'skadma[bench]'"
    ) from error

from .analysis import (
    area_under_curve,
    compare,
    labels_to_reach,
    learning_table,
    summary_table,
    wins_and_losses,
)
from .config import Cell, expand, load_config
from .datasets import (
    DATASETS,
    LabelledImages,
    Split,
    load_dataset,
    split_dataset,
)
from .report import write_report
from .runner import FailedCellsError, collect, read_results, run_benchmark

__all__ = [
    "DATASETS",
    "Cell",
    "FailedCellsError",
    "LabelledImages",
    "Split",
    "area_under_curve",
    "collect",
    "compare",
    "expand",
    "labels_to_reach",
    "learning_table",
    "load_config",
    "load_dataset",
    "read_results",
    "run_benchmark",
    "split_dataset",
    "summary_table",
    "wins_and_losses",
    "write_report",
]
