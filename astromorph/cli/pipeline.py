"""Run all steps without Snakemake, with the same output files.

Prepared images are reused if their settings, code, rows of the list and FITS files have
not changed.
"""

import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from astromorph.artefacts.columns import SPLIT_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.atomic import atomic_write
from astromorph.cli.steps import STEPS, Job, Step, wanted_steps
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist, read_paths
from astromorph.filelist.shards import HEAD_ROWS, Shard, file_states, plan_shards
from astromorph.provenance import canonical_json, code_digest, digest
from astromorph.settings.presets import needs_head
from astromorph.settings.steps import part_of
from astromorph.system.workers import process_pool

LOG = logging.getLogger(__name__)
PREPARATION = ("validate", "preprocess", "split")
TRAINING = ("train", "report_history")


def run_train(job: Job) -> None:
    """From FITS files to a model.

    Parameters
    ----------
    job : Job
        All settings; `trained_network_name` names the model file to write, by
        default ``model/model.pt`` in the results folder. Files are read by `threads`
        processes.
    """
    run_steps(job, [STEPS[name] for name in (*PREPARATION, *TRAINING)])


def run_infer(job: Job) -> None:
    """From FITS files and a model to embeddings and exports.

    Parameters
    ----------
    job : Job
        All settings; `trained_network_name` names the model file to read, by
        default ``model/model.pt`` in the results folder.

    Raises
    ------
    AstromorphError
        The model file cannot be used; this is checked before any image is read.
    """
    from astromorph.byol.build import load_model

    load_model(job.files.model)
    steps = wanted_steps(job.settings)
    run_steps(job, [step for step in steps if step.name not in TRAINING])


def run_steps(job: Job, steps: Iterable[Step]) -> None:
    """Execute steps in order; steps that work on single shards, for each shard.

    Parameters
    ----------
    job : Job
        All settings of the run; its shards are planned here.
    steps : iterable of Step
        Values of `astromorph.cli.steps.STEPS`.
    """
    settings = job.settings
    shards = plan_shards(
        read_filelist(job.datafile), settings.preprocess_settings.shard_size
    )
    job = replace(
        job,
        files=replace(job.files, shards=tuple(shard.name for shard in shards)),
        with_evaluation=STEPS["evaluate"].is_wanted(settings),
    )
    for step in steps:
        if step.name == "preprocess":
            _preprocess_changed(job, shards)
        elif step.name == "infer":
            for shard in shards:
                step.run(replace(job, shard=shard))
        else:
            step.run(job)


def finished_run(results: str | Path, model: str | None = None) -> RunFiles:
    """The files of a run that has an analysis.

    Parameters
    ----------
    results : path
        The results folder.
    model : str, optional
        The model file, if it is not ``model/model.pt`` in that folder.

    Raises
    ------
    AstromorphError
        The run does not exist, or is not finished.
    """
    files = RunFiles.of_run(results, named_model=model)
    for path in (files.catalogue, files.split, files.analysis, files.analysis_summary):
        if not path.exists():
            raise AstromorphError(
                f"{path}: no such file; give the folder of a finished run with "
                "--results, or run `snakemake` or `astromorph infer` first"
            )
    rows = read_csv(files.split, SPLIT_COLUMNS)
    return replace(files, shards=tuple(dict.fromkeys(row["shard"] for row in rows)))


def _preprocess_changed(job: Job, shards: Sequence[Shard]) -> None:
    """Prepare the shards whose images have not been prepared yet or have changed."""
    digests = dict(zip(shards, _input_digests(job, shards), strict=True))
    changed = [s for s in shards if not _is_prepared(job.files, s, digests[s])]
    if len(changed) < len(shards):
        reused = len(shards) - len(changed)
        LOG.info("%d of %d shards of tensors are reused", reused, len(shards))
    if job.threads > 1 and len(changed) > 1:
        with process_pool(job.threads) as pool:
            running = [
                pool.submit(_preprocess, job, shard, digests[shard])
                for shard in changed
            ]
            for future in running:
                future.result()
    else:
        for shard in changed:
            _preprocess(job, shard, digests[shard])


def _preprocess(job: Job, shard: Shard, input_digest: str) -> None:
    STEPS["preprocess"].run(replace(job, shard=shard))
    with atomic_write(job.files.cache_record(shard.name)) as temporary:
        temporary.write_text(json.dumps({"made_from": input_digest}), encoding="utf-8")


def _input_digests(job: Job, shards: Sequence[Shard]) -> Iterator[str]:
    """For each shard, a digest of everything that its tensors depend on."""
    common = [
        canonical_json(part_of(job.settings, "preprocess")),
        code_digest(STEPS["preprocess"].code),
    ]
    if needs_head(job.settings):
        head = itertools.islice(read_paths(job.datafile), HEAD_ROWS)
        common += file_states(head)
    paths = read_paths(job.datafile)
    for shard in shards:
        rows = itertools.islice(paths, shard.stop - shard.start)
        yield digest([*common, shard.digest, *file_states(rows)])


def _is_prepared(files: RunFiles, shard: Shard, input_digest: str) -> bool:
    outputs = files.tensors(shard.name), files.contents(shard.name)
    if not all(path.exists() for path in outputs):
        return False
    try:
        text = files.cache_record(shard.name).read_text(encoding="utf-8")
        return bool(json.loads(text).get("made_from") == input_digest)
    except (OSError, ValueError, AttributeError):
        return False
