"""What commands write to a terminal."""

from __future__ import annotations

import argparse
import logging
import tempfile
import traceback
from typing import Any, NoReturn

_ESCAPED = {
    code: chr(code).encode("unicode_escape").decode()
    # Control characters but tab and line feed, and those that turn text around.
    for code in (
        *(n for n in range(0x20) if chr(n) not in "\t\n"),
        *range(0x7F, 0xA0),
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    )
}


def printable(text: str) -> str:
    """Escape what a terminal would obey: names may be anybody's."""
    return text.translate(_ESCAPED)


class PrintableStream:
    """A stream for `print` that escapes what it writes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class PrintableFormatter(logging.Formatter):
    """A formatter of log records that escapes them."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return printable(super().format(record))


class Parser(argparse.ArgumentParser):
    """A parser whose messages are escaped."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the command with a message."""
        super().exit(status, message and printable(message))


def describe_unforeseen(error: BaseException) -> str:
    """Write down an error that no message was written for; say where."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="skadma-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    return (
        f"this was not foreseen ({type(error).__name__}: {error}). What was "
        f"acknowledged before is safe. Please report it with the file {file.name}, "
        "which says what happened; see SECURITY.md where it could do harm."
    )
