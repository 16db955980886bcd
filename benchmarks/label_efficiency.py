"""Measure which strategy needs how many labels: ``skadma bench`` from a checkout.

    python benchmarks/label_efficiency.py run CONFIG --out DIR [--jobs 2] [--data DIR]
    python benchmarks/label_efficiency.py report DIR [--against STRATEGY]

docs/benchmarks.md says what a configuration holds and what the results mean.
"""

import sys

from skadma.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
