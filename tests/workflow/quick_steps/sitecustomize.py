"""Steps that only write digests of what they read, for tests of interrupted runs.

Python imports this module at its start if its folder is in PYTHONPATH. All else is
real: Snakemake, the rules, the command line, the records. The content of each output
depends on the settings and code of its step, on the rows and contents of the files that
it reads, and on the results before it, so that a stale result differs.

Environment variables tell some steps to stop before their last output: ``STOP_STEPS``
are their names, with commas. In the folder ``STOP_FOLDER`` each creates a file of its
name and waits for a file ``release``, or for a file ``fail`` to raise an error.
"""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path


def contents(path: Path) -> bytes:
    """Everything in a file or folder."""
    if path.is_dir():
        return b"".join(contents(entry) for entry in sorted(path.iterdir()))
    return path.read_bytes() if path.exists() else b"missing"


def quick(step):
    """The step, with the same outputs and another way to write them."""
    from astromorph.atomic import atomic_folder, atomic_write
    from astromorph.cli.execute import previous_jobs
    from astromorph.cli.steps import STEPS
    from astromorph.filelist.entries import read_filelist
    from astromorph.provenance import PACKAGE, canonical_json
    from astromorph.settings.steps import part_of

    def sources(job):
        """What the step reads itself."""
        if step.name in ("validate", "preprocess", "split"):
            start, stop = (job.shard.start, job.shard.stop) if job.shard else (0, None)
            for entry in list(read_filelist(job.settings.datafile))[start:stop]:
                yield entry.image_id
                if step.name != "preprocess":
                    columns = dict(entry.columns)
                    wanted = ("group", "split") if step.name == "split" else columns
                    yield from (columns.get(name, "") for name in wanted)
                if step.name != "split":
                    yield contents(Path(entry.path)).hex()
        if step.name == "train" and job.settings.network_settings.weights:
            yield contents(Path(job.settings.network_settings.weights)).hex()
        if step.name == "rank" and job.settings.marks:
            yield contents(Path(job.settings.marks)).hex()
        if step.name in ("infer", "export_gallery", "report_settings", "report_home"):
            yield contents(job.files.model).hex()

    def run(job):
        sha = hashlib.sha256()
        if step.part:
            sha.update(canonical_json(part_of(job.settings, step.part)).encode())
        # Of the code that runs, whatever digest the job was told.
        for path in sorted(PACKAGE.rglob("*.py")):
            sha.update(path.read_bytes())
        for text in sources(job):
            sha.update(text.encode())
        for name, one in previous_jobs(step, job):
            for path in STEPS[name].outputs(job.files, one):
                sha.update(contents(path))
        outputs = step.outputs(job.files, job.shard.name if job.shard else "")
        text = f"{step.name} {sha.hexdigest()}\n"
        for number, path in enumerate(outputs):
            if number == len(outputs) - 1:
                stop(step.name)
            is_folder = path in (
                job.files.projector, job.files.gallery, job.files.scalars,
                job.files.ranking_sheets,
            )  # fmt: skip
            if is_folder:
                with atomic_folder(path) as folder:
                    (folder / "content").write_text(text)
            else:
                with atomic_write(path) as temporary:
                    temporary.write_text(text)

    return replace(step, run=run)


def stop(step: str) -> None:
    """Wait until the test kills or releases this process."""
    if step not in os.environ.get("STOP_STEPS", "").split(","):
        return
    folder = Path(os.environ["STOP_FOLDER"])
    own = folder / str(os.getpid())
    own.write_text(str(os.getpid()))
    try:
        os.link(own, folder / step)  # of several shards, one stops
    except FileExistsError:
        return
    for _ in range(3000):
        if (folder / "fail").exists():
            raise OSError(28, "No space left on device", "results")
        if (folder / "release").exists():
            return
        time.sleep(0.02)


def install() -> None:
    """Replace all steps."""
    try:
        from astromorph.cli import execute
        from astromorph.cli.steps import STEPS
    except ImportError:
        return  # not a process of this project
    for name, step in list(STEPS.items()):
        STEPS[name] = quick(step)
    # The models of these tests are no networks.
    execute.check_model_channels = lambda settings, model_file: None


install()
