"""Log lines on the terminal, in every process of the package.

Names and header cards of untrusted files can contain line breaks and terminal codes.
They are written as escape sequences, so that no text can forge a line of the log.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any

MAX_CHARACTERS = 8000  # of one line
LINE, TIME = "%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"
LOG = logging.getLogger("astromorph")
# The characters by which Python represents bytes of file names that are not UTF-8.
UNDECODABLE = re.compile("[\udc80-\udcff]")


def printable(text: str) -> str:
    r"""Text in one line, with unprintable characters as escape sequences.

    Examples
    --------
    >>> printable("a\nb\x1b[2J\u202e")
    'a\\nb\\x1b[2J\\u202e'
    """
    if text.isprintable():
        return text
    text = escape_undecodable(text)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escape_undecodable(text: str) -> str:
    r"""Text that can be encoded: bytes of file names that are not UTF-8 are escaped.

    Examples
    --------
    >>> escape_undecodable(b"caf\xe9.fits".decode("utf-8", "surrogateescape"))
    'caf\\xe9.fits'
    """
    if text.isascii():
        return text
    return UNDECODABLE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def shortened(text: str) -> str:
    """The beginning and the end of a text that is too long for a line of a log."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]} [{len(text) - 2 * half} characters] {text[-half:]}"


class OneLine(logging.Formatter):
    """One line per record, without unprintable characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return shortened(printable(super().format(record)))


def set_up_logging(level: int) -> None:
    """Log to standard error with one line per record, in this process.

    Warnings become records. So do the records of packages that print them themselves.
    An exception that nothing handles is printed with indented lines, then logged.

    Parameters
    ----------
    level : int
        The lowest level that is logged, such as `logging.INFO`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(LINE, TIME))
    logging.basicConfig(level=level, handlers=[handler])
    logging.setLogRecordFactory(_make_record)
    logging.captureWarnings(True)
    sys.excepthook = _log_exception


def _make_record(name: str, *arguments: Any, **named: Any) -> logging.LogRecord:
    """A record of any package; the handler of the root logger writes it."""
    if name == "astropy":  # adds its own handler, which writes raw text, when imported
        logging.getLogger(name).handlers.clear()
    return logging.LogRecord(name, *arguments, **named)


def _log_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback whose lines cannot be taken for lines of the log."""
    for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
        print(f"  {printable(line)}", file=sys.stderr)
    LOG.error("unexpected %s: %s", kind.__name__, error)
