"""Label efficiency: data sets x networks x strategies x seeds, measured in pairs."""

try:
    import elpv_dataset  # noqa: F401
    import matplotlib  # noqa: F401
    import pandas  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"skadma.bench needs {error.name}: pip install 'skadma[bench]'"
    ) from error

from .analysis import area_under_curve, compare, labels_to_reach
from .datasets import LabelledImages
from .report import write_report
from .runner import read_results, run_benchmark

__all__ = [
    "LabelledImages",
    "area_under_curve",
    "compare",
    "labels_to_reach",
    "read_results",
    "run_benchmark",
    "write_report",
]
