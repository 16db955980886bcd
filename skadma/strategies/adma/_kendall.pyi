import numpy as np

def count_pairs(
    a: np.ndarray, b: np.ndarray, n: int, single: bool, out: np.ndarray, /
) -> None: ...
