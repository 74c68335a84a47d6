"""Which jobs of a Snakemake run failed in the end, and what they said."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# As Snakemake writes them: a line, then indented lines of "name: value".
FAILED = re.compile(r"^Error in rule (\w+):\n((?:[ \t]+.*\n)+)", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+)\b", re.MULTILINE)
SAID = re.compile(r" ERROR (.*)")


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed and did not succeed later.

    Attributes
    ----------
    rule : str
        Its step.
    log : str
        Where the step wrote its log; empty where it has none.
    said : str
        The last error in that log; empty where there is none.
    """

    rule: str
    log: str
    said: str

    def __str__(self) -> str:
        reason = self.said or "killed before it could say why"
        return f"{self.rule}: {reason}" + (f" ({self.log})" if self.log else "")


def failed_jobs(log: str | Path | Iterable[str | Path]) -> list[FailedJob]:
    """The jobs that failed at their last attempt.

    Parameters
    ----------
    log : path or iterable of path
        Snakemake's own log of the run; since its version 9 it may keep several.

    Returns
    -------
    list of Failure
        In the order in which they failed first; empty where the log is gone.
    """
    logs = [log] if isinstance(log, str | Path) else log
    text = "\n".join(_text(path) for path in logs)
    done = set(FINISHED.findall(text))
    last = {}
    for rule, lines in FAILED.findall(text):
        facts = dict(_facts(lines))
        number = facts.get("jobid", "")
        if number not in done:
            name = re.split(r", | \(", facts.get("log", ""))[0]
            last[number] = FailedJob(rule, name, _said(name))
    return list(last.values())


def _facts(lines: str) -> Iterator[tuple[str, str]]:
    for line in lines.splitlines():
        name, colon, value = line.strip().partition(": ")
        if colon:
            yield name, value


def _said(log: str) -> str:
    return next(iter(SAID.findall(_text(log) if log else "")[-1:]), "")


def _text(path: str | Path) -> str:
    """What a log holds; nothing where it is gone."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
