"""Records of what results were made from, written by every step when it has finished.

A result is up to date if its record states the present settings, list, files and code,
and if its files are complete. This does not depend on modification times or on who ran
the step, so that interrupted runs are noticed whatever became of other records.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from astromorph.artefacts.run_files import RunFiles
from astromorph.atomic import atomic_write, sync_names, sync_to_disk
from astromorph.provenance import digest, versions

VERSION = 1
UNKNOWN = "unknown"  # the digest of something that has no record


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of everything that a result depends on, 16 hexadecimal digits each.

    Attributes
    ----------
    settings : str
        The values of the settings.
    file_list : str
        The rows of the file list.
    files : str
        Sizes and modification times of the FITS files, and of weights and models that
        are given in the settings.
    code : str
        The syntax trees of the modules.
    """

    settings: str
    file_list: str
    files: str
    code: str

    def with_previous(self, previous: Iterable["Inputs"]) -> "Inputs":
        """Include the inputs of the steps whose results a step reads, in order."""
        steps = (self, *previous)
        return Inputs(
            *(
                digest(getattr(step, field.name) for step in steps)
                for field in fields(Inputs)
            )
        )

    def differences(self, other: "Inputs") -> tuple[str, ...]:
        """Names of the attributes that differ."""
        names = (field.name for field in fields(Inputs))
        return tuple(n for n in names if getattr(self, n) != getattr(other, n))

    def to_json(self) -> str:
        """Text for `from_json`."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Inputs":
        """Read the text of `to_json`; raises ValueError for any other text."""
        return cls._from_mapping(json.loads(text))

    @classmethod
    def _from_mapping(cls, values: Any) -> "Inputs":
        if not isinstance(values, dict):
            raise ValueError(f"found {values!r}; allowed is a JSON object")
        names = [field.name for field in fields(cls)]
        texts = [values.get(name) for name in names]
        if len(values) != len(names) or not all(isinstance(t, str) for t in texts):
            raise ValueError(
                f"found {values!r}; allowed is a JSON object of {', '.join(names)}"
            )
        return cls(*map(str, texts))


UNKNOWN_INPUTS = Inputs(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Record:
    """What the results of one job were made from.

    Attributes
    ----------
    step, job : str
        The step and its job: the shard, or the name of the step.
    made_from : Inputs
        The inputs of the step and of all steps before it.
    finished : str
        Date and time (UTC, ISO 8601).
    outputs : mapping of str to int
        For each output, its size in bytes; the sum for a folder. Paths are relative to
        the results folder, or absolute.
    """

    step: str
    job: str
    made_from: Inputs
    finished: str
    outputs: Mapping[str, int]

    def has_complete_outputs(self, results: Path) -> bool:
        """Whether all outputs exist and have the size that they were written with."""
        return bool(self.outputs) and all(
            size_of(results / name) == size for name, size in self.outputs.items()
        )


def write_record(
    files: RunFiles, step: str, job: str, made_from: Inputs, outputs: Iterable[Path]
) -> None:
    """Wait until the outputs of a job are on the disk, then write its record.

    Parameters
    ----------
    files : RunFiles
        The files of the run.
    step, job : str
        The step and its job.
    made_from : Inputs
        The inputs of the step and of all steps before it.
    outputs : iterable of Path
        Files and folders that exist.
    """
    sizes = {}
    for output in outputs:
        sync_to_disk(output)
        sizes[_relative(output, files.results)] = size_of(output)
    record = {
        "version": VERSION,
        "step": step,
        "job": job,
        "made_from": asdict(made_from),
        "finished": now().isoformat(timespec="seconds"),
        "outputs": sizes,
        "versions": versions(),
    }
    path = files.record(step, job)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        sync_to_disk(temporary)
    sync_names(path.parent)


def read_record(files: RunFiles, step: str, job: str) -> Record | None:
    """Read the record of a job; None if there is none that can be read."""
    return _read(files.record(step, job))


def all_records(files: RunFiles) -> list[Record]:
    """All records in the results folder, in the order of their paths."""
    folder = files.record("step", "job").parents[1]
    records = (_read(path) for path in sorted(folder.glob("*/*.json")))
    return [record for record in records if record is not None]


def remove_record(files: RunFiles, step: str, job: str) -> None:
    """Remove the record of a job before its outputs change.

    The removal is on the disk before this function returns.
    """
    path = files.record(step, job)
    if path.exists():
        path.unlink(missing_ok=True)
        sync_names(path.parent)


def _read(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            return None
        outputs = {str(name): int(size) for name, size in values["outputs"].items()}
        made_from = Inputs._from_mapping(values["made_from"])
        return Record(
            str(values["step"]),
            str(values["job"]),
            made_from,
            str(values["finished"]),
            outputs,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def size_of(path: Path) -> int:
    """Size of a file, or of all files in a folder, in bytes; -1 if it is missing."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(size_of(Path(entry)) for entry in os.scandir(path))
    except OSError:
        return -1


def _relative(path: Path, results: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(results))
    return str(path.absolute())


def now() -> datetime.datetime:
    """The time in UTC, or that of ``SOURCE_DATE_EPOCH`` if it is set.

    References
    ----------
    .. [1] https://reproducible-builds.org/specs/source-date-epoch/
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if seconds.isdecimal():
        return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return datetime.datetime.now(datetime.UTC)
