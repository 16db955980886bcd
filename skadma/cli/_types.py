"""Types of arguments."""

import argparse


def positive(text: str) -> int:
    """Take an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
