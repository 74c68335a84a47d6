"""The command line: one subcommand per step, and `simulate`.

Only this module configures logging and exits.
"""

import logging
import os
import sys
from collections.abc import Sequence

from astromorph.cli.arguments import parser
from astromorph.errors import AstromorphError, explain_error

LOG = logging.getLogger("astromorph")


class OneLine(logging.Formatter):
    """A line for each record: file names can contain line ends and terminal codes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with unprintable characters as escape sequences."""
        text = super().format(record)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Exit codes: 0 success, 1 an error that the message explains, 2 wrong usage, 130
    interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    options = parser().parse_args(arguments)
    # Of several processes that train together, only the first one logs information.
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, handlers=[handler]
    )
    logging.captureWarnings(True)  # warnings of other packages become records
    try:
        options.command(options)
    except AstromorphError as error:
        for line in str(error).splitlines():
            LOG.error("%s", line)
        sys.exit(1)
    except KeyboardInterrupt:
        LOG.error("interrupted; files that were complete before remain")
        sys.exit(130)
    except Exception as error:
        explanation = explain_error(error)
        if explanation is None:
            raise
        LOG.error("%s", explanation)
        sys.exit(1)
