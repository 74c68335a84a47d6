"""The step `export gallery`: contact sheets and pictures of the map.

It writes a folder of PNG files, a page that shows them, and a table of their images.
"""

import contextlib
import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astromorph.artefacts.columns import GALLERY_COLUMNS
from astromorph.artefacts.model_file import read_model_file
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import (
    all_tensors,
    find_in_catalogue,
    list_digest,
    reference_of,
)
from astromorph.artefacts.tables import write_csv
from astromorph.atomic import atomic_folder
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import SIDE, Layout, draw_sheet
from astromorph.export.gallery.map_picture import (
    PICTURE,
    choose_maps,
    draw_map,
    map_png,
)
from astromorph.export.gallery.pictures import (
    Picture,
    ShardImages,
    augmented_views,
    find_images,
    fit_into_frame,
    picture_from_fits,
)
from astromorph.export.gallery.sheets import (
    MAX_CLUSTERS,
    Frame,
    Sheet,
    choose_sheets,
    random_key,
)
from astromorph.filelist.entries import read_filelist
from astromorph.pages.html import script_of, script_source, write_page
from astromorph.pages.pictures import png_url
from astromorph.preprocessing.resample import prepared_pixel_scale
from astromorph.progress import track
from astromorph.settings.loading import parse
from astromorph.settings.sections import DataSettings, ExportSettings, Settings

LOG = logging.getLogger(__name__)
SCRIPTS = ("basics.js", "marks_file.js", "gallery.js")  # in the order of the page
NETWORK = "network"  # stretch that shows the prepared images


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The catalogue's entries of an image that a sheet shows."""

    name: str
    path: str
    width: int
    height: int
    pixel_scale_arcsec: float | None


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Where the pictures of frames come from.

    Attributes
    ----------
    images : ShardImages
        The prepared images.
    fits_paths : dict of str to tuple of str
        FITS files of each image; empty if sheets show the prepared images.
    facts : dict of str to ImageFacts
        From the catalogue.
    data : DataSettings
        How FITS files are read.
    stretch : str
        How FITS files are drawn.
    training : Settings
        Settings that the model was trained with; they determine the views.
    seed : int
        Seed of the views.
    """

    images: ShardImages
    fits_paths: dict[str, tuple[str, ...]]
    facts: dict[str, ImageFacts]
    data: DataSettings
    stretch: str
    training: Settings
    seed: int

    def pictures(self, sheet: Sheet, side: int = SIDE) -> list[Picture | None]:
        """Pictures for the frames of a sheet; None for an empty position."""
        views: dict[tuple[str, int], Picture] = {}
        if sheet.kind == "views":
            for frame in sheet.frames:
                if frame.view == 0:
                    views |= self._views(frame.image_id, side)
        return [
            views.get((frame.image_id, frame.view)) or self._picture(frame, side)
            for frame in sheet.frames
        ]

    def _picture(self, frame: Frame, side: int) -> Picture | None:
        if not frame.image_id:
            return None
        if self.fits_paths:
            paths = self.fits_paths[frame.image_id]
            return picture_from_fits(paths, self.data, self.stretch, side)
        return self._prepared_picture(frame.image_id, side)

    def _prepared_picture(self, image_id: str, side: int) -> Picture:
        facts, scale = self.facts[image_id], None
        if facts.pixel_scale_arcsec and facts.width and facts.height:
            scale = prepared_pixel_scale(
                facts.width,
                facts.height,
                facts.pixel_scale_arcsec,
                self.images.preprocessing,
            )
        return fit_into_frame(self.images.pixels(image_id), None, scale, side)

    def _views(self, image_id: str, side: int) -> dict[tuple[str, int], Picture]:
        """The prepared image and two views of it, which have no scale."""
        pair = augmented_views(
            self.images.tensor(image_id),
            self.training.augmentation_settings,
            self.training.data_settings.stacksize,
            random_key(self.seed, image_id) % 2**63,
            number=2,
        )
        pictures = {(image_id, 0): self._prepared_picture(image_id, side)}
        for k, pixels in enumerate(pair, start=1):
            pictures[image_id, k] = fit_into_frame(pixels, None, None, side)
        return pictures


def export_gallery(
    files: RunFiles,
    datafile: str | Path,
    data: DataSettings,
    rules: ExportSettings,
    label: str | None,
    seed: int,
) -> None:
    """Write the folder of contact sheets and pictures of the map.

    Parameters
    ----------
    files : RunFiles
        `catalogue`, `analysis`, `all_tensors` and `model` are read; `gallery` is
        replaced: a PNG for each sheet, `index.html`, `sheets.csv`.
    datafile : path
        The file list; read if pictures are drawn from the FITS files.
    data : DataSettings
        How FITS files are read.
    rules : ExportSettings
        `gallery_images` and `gallery_stretch` are used.
    label : str or None
        Column of the file list by which a second picture of the map is coloured.
    seed : int
        Seed of the random choices and of the augmented views.

    Raises
    ------
    AstromorphError
        The files do not match.
    """
    sheets = choose_sheets(files.analysis, rules.gallery_images, seed)
    maps = choose_maps(files, label)
    all_sheets = [*(contents.sheet for contents in maps), *sheets]
    image_ids = {f.image_id for s in all_sheets for f in s.frames if f.image_id}
    fits_paths = {}
    if rules.gallery_stretch != NETWORK:
        fits_paths = _read_fits_paths(datafile, image_ids, files)
    source = PictureSource(
        images=find_images(all_tensors(files), image_ids),
        fits_paths=fits_paths,
        facts=read_facts(files, image_ids),
        data=data,
        stretch=rules.gallery_stretch,
        training=parse(read_model_file(files.model).settings, str(files.model)),
        seed=seed,
    )
    with atomic_folder(files.gallery) as folder:
        dark_maps = {}
        for contents in track(maps, len(maps), "pictures of the map"):
            name = contents.sheet.name
            pictures = source.pictures(contents.sheet, PICTURE)
            draw_map(folder / f"{name}.png", contents, pictures)
            dark_maps[name] = png_url(map_png(contents, pictures, dark=True))
        with _quick_collections():
            for sheet in track(sheets, len(sheets), "contact sheets"):
                names = [
                    source.facts[frame.image_id].name if frame.image_id else ""
                    for frame in sheet.frames
                ]
                path = folder / f"{sheet.name}.png"
                draw_sheet(path, sheet, source.pictures(sheet), names)
                gc.collect()  # figures and their pixels are in reference cycles
        rows = _table_rows(sheets, source.facts)
        write_csv(folder / "sheets.csv", GALLERY_COLUMNS, rows)
        map_page = Path("..", files.map.name) if rules.map else None
        _write_index(
            folder / "index.html", all_sheets, source, files, map_page, dark_maps
        )
    LOG.info(
        "%s: %d sheets of %d images", files.gallery, len(all_sheets), len(image_ids)
    )


@contextlib.contextmanager
def _quick_collections() -> Iterator[None]:
    """Keep the collector from visiting existing objects, such as all that is imported.

    With torch, there are half a million, which takes as long as drawing a sheet.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _read_fits_paths(
    datafile: str | Path, image_ids: set[str], files: RunFiles
) -> dict[str, tuple[str, ...]]:
    """The FITS files of some images."""
    paths = {
        entry.image_id: entry.paths
        for entry in read_filelist(datafile)
        if entry.image_id in image_ids
    }
    missing = sorted(image_ids - set(paths))
    if missing and reference_of(files):
        found = find_in_catalogue(files, missing, ["path"])
        paths |= {i: (p,) for i, p in zip(missing, found["path"], strict=True)}
    elif missing:
        raise AstromorphError(
            f"{datafile}: the image {missing[0]} of {files.analysis} is not in this "
            "list; run `validate` and all later steps again"
        )
    return paths


def read_facts(files: RunFiles, image_ids: set[str]) -> dict[str, ImageFacts]:
    """The catalogue's entries of some images, by their ids."""
    columns = ("object", "path", "width", "height", "pixel_scale_arcsec")
    table = find_in_catalogue(files, sorted(image_ids), columns)
    return {row["image_id"]: _facts(row) for row in table.to_dict("records")}


def _facts(row: Mapping[str, str]) -> ImageFacts:
    scale = row["pixel_scale_arcsec"]
    return ImageFacts(
        name=row["object"] or Path(row["path"]).name,
        path=row["path"],
        width=int(row["width"] or 0),
        height=int(row["height"] or 0),
        pixel_scale_arcsec=float(scale) if scale else None,
    )


def _table_rows(
    sheets: Iterable[Sheet], facts: Mapping[str, ImageFacts]
) -> Iterator[dict[str, Any]]:
    """A row for each frame of each sheet."""
    for sheet in sheets:
        for k, frame in enumerate(sheet.frames):
            if frame.image_id:
                yield {
                    "sheet": sheet.name,
                    "row": 1 + k // sheet.columns,
                    "column": 1 + k % sheet.columns,
                    "image_id": frame.image_id,
                    "object": facts[frame.image_id].name,
                    "path": facts[frame.image_id].path,
                    "note": frame.note,
                }


def _write_index(
    path: Path,
    sheets: Sequence[Sheet],
    source: PictureSource,
    files: RunFiles,
    map_page: Path | None,
    dark_maps: Mapping[str, str],
) -> None:
    """Write the page that shows all sheets and explains how to read them.

    Images can be marked by keys. Each frame is a link to its image on the map, if there
    is one. `dark_maps` are the pictures of the map for a dark page, as URLs.
    """
    script = script_of(SCRIPTS, __package__)
    kinds: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        kinds.setdefault(sheet.kind, []).append(sheet)
    write_page(
        path,
        "gallery.html",
        files,
        final=files.gallery / path.name,
        kinds=kinds,
        dark_maps=dark_maps,
        links={
            sheet.name: list(_links(sheet, source.facts, map_page))
            for sheet in sheets
            if sheet.kind != "map"
        },
        marks=list_digest(files),
        script=script,
        script_source=script_source(script),
        map_page=map_page.as_posix() if map_page else None,
        stretch=source.stretch,
        max_clusters=MAX_CLUSTERS,
        preprocessing=source.images.preprocessing,
    )


def _links(
    sheet: Sheet, facts: Mapping[str, ImageFacts], map_page: Path | None
) -> Iterator[dict[str, Any]]:
    """Each frame of a sheet: its place in per cent of the sheet, image and link."""
    layout = Layout(sheet.columns, sheet.group_size, len(sheet.frames))
    width, height = layout.size
    for k, frame in enumerate(sheet.frames):
        if frame.image_id:
            left, top = layout.position(k)
            yield {
                "left": 100 * left / width,
                "top": 100 * top / height,
                "width": 100 * SIDE / width,
                "height": 100 * SIDE / height,
                "name": facts[frame.image_id].name,
                "image_id": frame.image_id,
                "path": facts[frame.image_id].path,
                "href": f"{map_page.as_posix()}#image={frame.image_id}"
                if map_page
                else None,
            }
