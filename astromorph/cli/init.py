"""The command `init`: a folder for a run, with settings that suit the images."""

import contextlib
import csv
import io
import math
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from astromorph.atomic import atomic_write
from astromorph.catalogue.summary import (
    FEW_IMAGES,
    MIN_IMAGES,
    describe_reasons,
    few_images_warning,
    general_reason,
)
from astromorph.cli.workflow import workflow_files
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist.entries import (
    GROUP_COLUMN,
    SPLIT_COLUMN,
    read_filelist,
    requested_subset,
)
from astromorph.filelist.list_header import OBJECT_COLUMN
from astromorph.fits.facts import ImageFacts
from astromorph.fits.image import describe_image
from astromorph.fits.planes import COLOURS
from astromorph.settings.presets import preset_epochs
from astromorph.settings.sections import (
    DataSettings,
    PreprocessSettings,
    Settings,
    SplitSettings,
)
from astromorph.system.files import split_hdu
from astromorph.system.logs import printable, shortened

FITS_ENDING = re.compile(r"\.(fits?|fts|fz)(\.(gz|bz2|xz|z|zip|fz))?$", re.IGNORECASE)
ENDINGS = ".fits, .fit, .fts or .fz, also with .gz, .bz2, .xz, .Z, .zip or .fz after it"
# Tables beside the images whose columns are added to the list, the first one found.
TABLES = ("labels.csv", "filelist.csv")
SPLIT_COLUMNS = (SPLIT_COLUMN, GROUP_COLUMN, OBJECT_COLUMN)
MAX_SAMPLED = 400  # files whose headers are read
MAX_SIDE = 4096  # pixels; a larger image is most likely a mosaic of many objects
MAX_CHANNELS = 5  # more planes are a spectrum or a sequence rather than colours
SMALL_SIDE, LARGE_SIDE = 40, 128  # pixels, for which other sizes than 64 are suggested
SNAKEFILE = '''\
# Written by `astromorph init`. The workflow itself is in the installed package.
from astromorph.cli.workflow import snakefile


include: snakefile()


rule everything:
    """Make all results of the run."""
    default_target: True
    input:
        rules.all.input,
'''


@dataclass(frozen=True)
class Findings:
    """What was found in the folders of images.

    Attributes
    ----------
    files : list of str
        Absolute paths of the FITS files, sorted.
    facts : list of ImageFacts
        Facts of those of the sampled files that can be read.
    reasons : Counter of str
        Why the others cannot be read.
    example : str
        A file with the most frequent of these reasons.
    stokes : bool
        Whether the planes of the cubes are Stokes parameters.
    """

    files: list[str]
    facts: list[ImageFacts]
    reasons: Counter[str] = field(default_factory=Counter)
    example: str = ""
    stokes: bool = False

    @property
    def sampled(self) -> int:
        """Number of files whose headers were read."""
        return len(self.facts) + self.reasons.total()

    @cached_property
    def planes(self) -> list[int]:
        """The number of planes of each sampled image."""
        return [count_planes(facts) for facts in self.facts]

    @cached_property
    def sides(self) -> list[int]:
        """The longer side of each sampled image in pixels, sorted."""
        return sorted(max(facts.width, facts.height) for facts in self.facts)

    @property
    def median_side(self) -> int:
        """The median of `sides`."""
        return self.sides[len(self.sides) // 2]

    @property
    def has_colours(self) -> bool:
        """Whether the cubes are pictures with the colours on the last axis."""
        cubes = [facts for facts in self.facts if count_planes(facts) > 1]
        return bool(cubes) and all(
            facts.shape[-1] in COLOURS and facts.shape[-1] != facts.width
            for facts in cubes
        )


@dataclass
class Labels:
    """Columns of a table beside the images.

    Attributes
    ----------
    names : list of str
        The names of the columns, without that of the files.
    rows : dict of str to list
        The cells of each row by the absolute path of its file.
    messages : list of str
        Which tables were used, or why not.
    """

    names: list[str] = field(default_factory=list)
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def init_run(
    folder: str | Path,
    images: Sequence[str | Path],
    force: bool = False,
    large_images: bool = False,
) -> list[str]:
    """Write the files with which a folder becomes that of a run.

    These are `Snakefile`, `filelist.csv`, `config/config.yaml`, `config/README.md`,
    `config/settings.schema.json` and `profiles/default/config.yaml`, and on a cluster
    `slurm/config.yaml`.

    Parameters
    ----------
    folder : path
        The folder of the run, which is made if necessary.
    images : sequence of path
        Folders that are searched for FITS files, and single files.
    force : bool
        Overwrite existing files.
    large_images : bool
        Accept images of more than 4096 pixels a side.

    Returns
    -------
    list of str
        What was found and written, and what to do next; one line each.

    Raises
    ------
    AstromorphError
        There are no FITS files, most of them cannot be used, or a file exists. Nothing
        is written then.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise AstromorphError(
            f"{folder}: this is a file; give a folder for the run, new or existing"
        )
    found = inspect(find_files(images, leave_out=folder / "results"))
    check_usable(found, images, large_images)
    labels = read_labels(found.files, images)
    texts = {
        "filelist.csv": list_text(found.files, labels, folder),
        "config/config.yaml": config_text(found, labels),
        "config/README.md": packaged_text("config/README.md"),
        "config/settings.schema.json": packaged_text("config/settings.schema.json"),
        "profiles/default/config.yaml": packaged_text("profiles/default/config.yaml"),
        "Snakefile": SNAKEFILE,
    }
    if shutil.which("sbatch"):
        texts["slurm/config.yaml"] = packaged_text("slurm/config.yaml")
    if not force:
        check_absent(folder, texts)
    write_all(folder, texts)
    return [
        *describe(found),
        *labels.messages,
        f"{folder}: wrote {', '.join(texts)}",
        *warnings_about(found),
        f"Next: `cd {shlex.quote(str(folder))}`, look at config/config.yaml, then "
        "`astromorph run` (or `snakemake --cores all`)",
    ]


def find_files(images: Sequence[str | Path], leave_out: Path) -> list[str]:
    """The FITS files in folders, by their names.

    Parameters
    ----------
    images : sequence of path
        Folders, which are searched with all folders in them, and single files.
    leave_out : path
        A folder that is not searched: the results of earlier runs contain FITS tables.

    Returns
    -------
    list of str
        Absolute paths, sorted; names that begin with a dot are left out.

    Raises
    ------
    AstromorphError
        A folder does not exist, or there is no FITS file.
    """
    files, others, hidden = set[str](), list[str](), os.path.abspath(leave_out)
    for name in map(os.path.abspath, images):
        if os.path.isdir(name):
            paths = list(_files_below(name, hidden))
            files.update(path for path in paths if FITS_ENDING.search(path))
            others += [path for path in paths if not FITS_ENDING.search(path)]
        elif os.path.isfile(name):
            files.add(name)
        else:
            raise AstromorphError(
                f"--images: {printable(name)}: there is no such folder; give the "
                "folder with your FITS files"
            )
    if not files:
        where = ", ".join(printable(str(name)) for name in images)
        instead = (
            f"; found {len(others)} other "
            f"{'file' if len(others) == 1 else 'files'}, such as "
            f"{printable(others[0])}. Only FITS files are read: convert the images, or "
            "give another folder"
            if others
            else "; found no files at all"
        )
        raise AstromorphError(
            f"--images: {where}: no FITS files (names that end in {ENDINGS}){instead}"
        )
    return sorted(files)


def _files_below(folder: str, leave_out: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in sorted(folders)
            if name[:1] != "." and os.path.join(parent, name) != leave_out
        ]
        yield from (os.path.join(parent, name) for name in names if name[:1] != ".")


def inspect(files: list[str]) -> Findings:
    """Read the headers of all files, or of 400 at equal distances in the list."""
    number = min(len(files), MAX_SAMPLED)
    sample = [files[k * len(files) // number] for k in range(number)]
    facts, stokes = [], None
    bad: dict[str, list[tuple[str, str]]] = {}  # reasons and paths
    # Plane 0 exists in every image and cube.
    rules = DataSettings(planes=0, max_pixels=2**60)
    for path in sample:
        try:
            facts.append(describe_image([path], rules))
        except FitsImageError as error:
            reason = str(error)
            bad.setdefault(general_reason(reason), []).append((reason, path))
        else:
            if stokes is None and count_planes(facts[-1]) > 1:
                stokes = _has_stokes_planes(path, facts[-1])
    reasons = Counter(
        {describe_reasons([why for why, _ in kind]): len(kind) for kind in bad.values()}
    )
    example = max(bad.values(), key=len)[0][1] if bad else ""  # of the first reason
    return Findings(files, facts, reasons, example, bool(stokes))


def count_planes(facts: ImageFacts) -> int:
    """The number of planes of an image; 1 unless it is a cube."""
    return math.prod(facts.shape) // max(1, facts.width * facts.height)


def _has_stokes_planes(path: str, first: ImageFacts) -> bool:
    """Whether the next plane has another Stokes parameter."""
    second = describe_image([path], DataSettings(planes=1, max_pixels=2**60))

    def stokes(facts: ImageFacts) -> list[str]:
        return [word for word in facts.plane.split(", ") if word.startswith("STOKES")]

    return stokes(second) != stokes(first)


def check_usable(
    found: Findings, images: Sequence[str | Path], large_images: bool
) -> None:
    """Raise an error if most of the files cannot be used as images of single objects.

    Parameters
    ----------
    found : Findings
        What was found.
    images : sequence of path
        The folders, which the message names.
    large_images : bool
        Accept images of more than `MAX_SIDE` pixels.
    """
    where = ", ".join(printable(str(name)) for name in images)
    bad = found.reasons.total()
    if bad > found.sampled / 2:
        lines = [
            f"--images: {where}: {bad} of {found.sampled} FITS files cannot be used, "
            f"for example {printable(found.example)}; give a folder of FITS images"
        ]
        lines += [f"  {n} times: {why}" for why, n in found.reasons.most_common(5)]
        raise AstromorphError("\n".join(lines))
    if found.median_side > MAX_SIDE and not large_images:
        raise AstromorphError(
            f"--images: {where}: the images have up to {found.sides[-1]} pixels a "
            f"side; above {MAX_SIDE} they are most likely mosaics with many objects, "
            "but astromorph needs one image per object. Cut them out first, for "
            "example with astropy.nddata.Cutout2D at the positions of a catalogue. If "
            "each image does show a single object, add --large-images"
        )


def read_labels(files: Sequence[str], images: Sequence[str | Path]) -> Labels:
    """Read `labels.csv` or `filelist.csv` in the folders of the images.

    Parameters
    ----------
    files : sequence of str
        The FITS files.
    images : sequence of path
        The folders that were searched.

    Returns
    -------
    Labels
        Rows are matched by path, by name of the file, or by name without its ending.
    """
    labels, listed = Labels(), set(files)
    folders = {os.path.abspath(name) for name in images} | set(
        map(os.path.dirname, files)
    )
    for folder in sorted(folders):
        for table in (os.path.join(folder, name) for name in TABLES):
            if os.path.isfile(table):
                _add_table(labels, table, folder, listed)
                break
    return labels


def _add_table(labels: Labels, table: str, folder: str, listed: set[str]) -> None:
    below = [path for path in listed if path.startswith(folder.rstrip("/") + "/")]
    by_name = {key: path for path in below for key in _names(path)}
    columns, rows = dict[str, None](), dict[str, list[dict[str, str]]]()
    try:
        for entry in read_filelist(table):
            if entry.other_paths:
                raise AstromorphError(
                    f"{printable(table)}: it has several files per row; copy it to "
                    "filelist.csv to use the files of a row as channels of one image"
                )
            name = split_hdu(entry.path)[0]
            path = os.path.normpath(name)
            path = path if path in listed else by_name.get(os.path.basename(name), "")
            if path:
                requested_subset(entry)
                rows.setdefault(path, []).append(dict(entry.columns))
            columns |= dict.fromkeys(entry.columns)
    except AstromorphError as error:
        labels.messages.append(f"Not used: {error}")
        return
    if not columns:
        labels.messages.append(
            f"Not used: {printable(table)}: it has no further column"
        )
        return
    labels.rows |= rows
    labels.names += [column for column in columns if column not in labels.names]
    found = ", ".join(f"`{printable(column)}`" for column in columns)
    used = [column for column in columns if column in SPLIT_COLUMNS]
    exception = f", except {' and '.join(used)} for the test set" if used else ""
    labels.messages.append(
        f"{printable(table)}: {found} for {len(rows)} of {len(below)} files. Training "
        f"does not use them{exception}."
    )


def _names(path: str) -> tuple[str, str]:
    name = os.path.basename(path)
    return name, FITS_ENDING.sub("", name)


def list_text(files: Sequence[str], labels: Labels, folder: Path) -> str:
    """The file list as CSV: `path`, and the columns of the labels.

    Files in the folder of the run are relative to it, so that it can be moved.
    """
    root = os.path.abspath(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *labels.names])
    for file in files:
        inside = file.startswith(root.rstrip("/") + "/")
        path = f"./{os.path.relpath(file, root)}" if inside else file
        for cells in labels.rows.get(file, [{}]):
            writer.writerow([path, *(cells.get(name, "") for name in labels.names)])
    return text.getvalue()


def config_text(found: Findings, labels: Labels) -> str:
    """The settings, with comments that say what was found."""
    number, side = len(found.files), found.median_side
    defaults = Settings()
    trained = max(1, round(number * (1 - SplitSettings().test_fraction)))
    lines = [
        "# yaml-language-server: $schema=settings.schema.json",
        "# The settings of this run, written by `astromorph init`. config/README.md "
        "lists all",
        "# settings; those that are missing here have their defaults.",
        "",
        f"# The list of {number} images. Further columns, such as `label` or "
        "`object`, appear in",
        "# the table and on the map.",
        "datafile: filelist.csv",
        "",
        "# The network: n_layer_resnet (ResNet-18 up to last_layer) or amm (lighter "
        "and faster).",
        f"network_name: {defaults.network_name}",
        "",
        "# Number of times that training uses each image; empty: chosen from their "
        "number,",
        f"# for yours {preset_epochs(trained)}.",
        "epochs:",
        f"batch_size: {defaults.batch_size}",
        "",
        "preprocess_settings:",
        "  # Side in pixels to which images are resized. "
        f"Yours have {_range(found)} pixels.",
        *(f"  # {line}" for line in _size_advice(side)),
        f"  size: {PreprocessSettings().size}",
        "  # `source` cuts out the emission, if the objects fill a small part of the "
        "images.",
        f"  crop: {PreprocessSettings().crop}",
        *_planes_lines(found),
        *_label_lines(labels),
    ]
    return "\n".join(lines) + "\n"


def _range(found: Findings) -> str:
    first, last = found.sides[0], found.sides[-1]
    if first == last:
        return f"{first}"
    return f"{first} to {last} (median {found.median_side})"


def _size_advice(side: int) -> list[str]:
    if side <= SMALL_SIDE:
        return ["32 is enough for them and takes a quarter of the time."]
    if side > LARGE_SIDE:
        return ["128 keeps finer detail and takes four times as long."]
    return []


def _planes_lines(found: Findings) -> list[str]:
    """`data_settings.planes` for cubes; no line for single images."""
    if max(found.planes) == 1:
        return []
    value, why = suggested_planes(found)
    return [
        "",
        "data_settings:",
        f"  # {why}",
        "  # Allowed: the number of a plane (from 0), sum, mean, max, channels, or a "
        'range "10:20".',
        f"  planes: {value}",
    ]


def suggested_planes(found: Findings) -> tuple[str, str]:
    """A value of `data_settings.planes` for cubes, and its reason."""
    numbers = sorted(set(found.planes) - {1})
    planes = _span(numbers)
    cubes = f"Your images are cubes of {planes} planes"
    if found.planes.count(1):
        share = f"{len(found.planes) - found.planes.count(1)} of {len(found.planes)}"
        return "0", f"{share} images are cubes of {planes} planes: the first plane."
    if found.stokes:
        return "0", f"{cubes}, Stokes parameters: the first one, I."
    if found.has_colours and len(numbers) == 1:
        return "channels", f"Your images have {planes} colours on the last axis."
    if len(numbers) == 1 and numbers[0] <= MAX_CHANNELS:
        return "channels", f"{cubes}, which become the channels of one image."
    return "mean", f"{cubes}, of which the mean is used; choose the planes that matter."


def _span(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"{first}" if first == last else f"{first} to {last}"


def _label_lines(labels: Labels) -> list[str]:
    default = Settings().evaluation_settings.label
    if not labels.names or default in labels.names:
        return []
    return [
        "",
        "# The column with classes or numbers by which the embedding is judged: "
        + ", ".join(map(printable, labels.names))
        + ".",
        "# evaluation_settings:",
        "#   label: COLUMN",
    ]


def describe(found: Findings) -> list[str]:
    """What was found, in plain lines."""
    number, read = len(found.files), found.sampled
    lines = [f"Found {number} FITS file{'s' if number > 1 else ''}."]
    which = "all headers" if read == number else f"the headers of {read} of them"
    text = f"Read {which}: images of {_range(found)} pixels a side"
    if max(found.planes) > 1:
        value, why = suggested_planes(found)
        text += f". {why} (`data_settings.planes: {value}`)"
    lines.append(text.rstrip(".") + ("" if text.endswith(")") else "."))
    if bad := found.reasons.total():
        why = shortened(printable(found.reasons.most_common(1)[0][0]))
        lines.append(
            f"{bad} of them cannot be used and will be left out, for example "
            f"{printable(found.example)}: {why}."
        )
    return lines


def warnings_about(found: Findings) -> list[str]:
    """What to expect of unusual images; empty if there is nothing to say."""
    lines = []
    if warning := few_images_warning(len(found.files)):
        lines.append(f"Warning: {warning}.")
    if len(found.files) < MIN_IMAGES:
        lines.append(
            f"Warning: with 1 image a run stops: it needs at least {MIN_IMAGES}, and "
            f"{FEW_IMAGES} or more to be useful. Give the folder that contains all "
            "images, or add rows to filelist.csv."
        )
    large = sum(side > MAX_SIDE for side in found.sides)
    if large:
        lines.append(
            f"Warning: {large} of {found.sampled} images have more than {MAX_SIDE} "
            "pixels a side. Each image must show one object: leave mosaics out of "
            "filelist.csv."
        )
    return lines


def packaged_text(name: str) -> str:
    """The text of a file that comes with the package."""
    return (workflow_files() / name).read_text(encoding="utf-8")


def check_absent(folder: Path, texts: dict[str, str]) -> None:
    """Raise an error if one of the files exists with other content."""
    existing = [
        name
        for name, text in texts.items()
        if os.path.lexists(folder / name) and _read(folder / name) != text
    ]
    if existing:
        raise AstromorphError(
            f"{folder}: {', '.join(existing)} exist{'s' if len(existing) == 1 else ''} "
            "already; give another folder, or add --force to overwrite"
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def write_all(folder: Path, texts: dict[str, str]) -> None:
    """Write all files, or none if one cannot be written."""
    new = [folder, *(folder / name for name in texts)]
    folders = {parent for path in new for parent in (path, *path.parents)}
    missing = sorted(path for path in folders if not path.exists())
    try:
        with contextlib.ExitStack() as stack:
            for name, text in texts.items():
                temporary = stack.enter_context(atomic_write(folder / name))
                temporary.write_text(
                    text, encoding="utf-8", errors="surrogateescape", newline="\n"
                )
    except BaseException:
        for path in reversed(missing):
            with contextlib.suppress(OSError):
                path.rmdir()  # only if it is an empty folder
        raise
