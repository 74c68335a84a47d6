"""The jobs of a Snakemake run that failed at their last attempt, and the reasons."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Snakemake writes a line, then indented lines of "name: value".
FAILED = re.compile(r"^Error in rule (\w+):\n((?:[ \t]+.*\n)+)", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+)\b", re.MULTILINE)
LOGGED_ERROR = re.compile(r" ERROR (.*)")


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed and did not succeed at a later attempt.

    Attributes
    ----------
    rule : str
        Its step.
    log : str
        The log file of the step; empty where it has none.
    reason : str
        The last error in that log; empty where there is none.
    """

    rule: str
    log: str
    reason: str

    def __str__(self) -> str:
        reason = self.reason or "killed before it could log a reason"
        return f"{self.rule}: {reason}" + (f" ({self.log})" if self.log else "")


def failed_jobs(log: str | Path | Iterable[str | Path]) -> list[FailedJob]:
    """Find the jobs that failed at their last attempt.

    Parameters
    ----------
    log : path or iterable of path
        Snakemake's own log of the run; since version 9 there may be several.

    Returns
    -------
    list of FailedJob
        In the order of their first failure; empty where the log does not exist.
    """
    logs = [log] if isinstance(log, str | Path) else log
    text = "\n".join(_read(path) for path in logs)
    finished = set(FINISHED.findall(text))
    failed = {}
    for rule, lines in FAILED.findall(text):
        facts = dict(_facts(lines))
        number = facts.get("jobid", "")
        if number not in finished:
            name = re.split(r", | \(", facts.get("log", ""))[0]
            failed[number] = FailedJob(rule, name, _last_error(name))
    return list(failed.values())


def _facts(lines: str) -> Iterator[tuple[str, str]]:
    for line in lines.splitlines():
        name, colon, value = line.strip().partition(": ")
        if colon:
            yield name, value


def _last_error(log: str) -> str:
    errors = LOGGED_ERROR.findall(_read(log) if log else "")
    return str(errors[-1]) if errors else ""


def _read(path: str | Path) -> str:
    """The text of a log; empty where it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
