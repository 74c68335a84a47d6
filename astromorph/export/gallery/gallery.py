"""The export `gallery`: the map as a picture, and contact sheets.

A folder of PNGs, a page that shows them all, and a table of what stands where.
"""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.model_file import read_model_file
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, GALLERY_COLUMNS
from astromorph.atomic import atomic_folder
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import SIDE, draw_sheet
from astromorph.export.gallery.map_contents import choose_maps
from astromorph.export.gallery.map_picture import draw_map
from astromorph.export.gallery.network_pictures import (
    NetworkImages,
    augmented_views,
    find_images,
)
from astromorph.export.gallery.pictures import (
    Picture,
    fit_into_frame,
    picture_from_fits,
)
from astromorph.export.gallery.scale_bars import prepared_pixel_scale
from astromorph.export.gallery.sheets import (
    MAX_CLUSTERS,
    Frame,
    Sheet,
    choose_sheets,
    random_key,
)
from astromorph.filelist.entries import read_filelist
from astromorph.pages.html import write_page
from astromorph.progress import track
from astromorph.settings.loading import parse
from astromorph.settings.sections import Settings

LOG = logging.getLogger(__name__)
NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Fact:
    """What the catalogue says of an image that is shown."""

    name: str
    path: str
    width: int
    height: int
    pixel_scale_arcsec: float | None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where pictures come from.

    Attributes
    ----------
    images : PreparedImages
        As the network sees them.
    files : dict of str to tuple of str
        The FITS files of each image; empty where the sheets show tensors.
    facts : dict of str to Fact
        Of the catalogue.
    settings : Settings
        `seed`, `data_settings` and `export_settings` are used.
    training : Settings
        Those of the model.
    """

    images: NetworkImages
    files: dict[str, tuple[str, ...]]
    facts: dict[str, Fact]
    settings: Settings
    training: Settings

    def pictures(self, sheet: Sheet) -> list[Picture | None]:
        """For each frame of a sheet its picture, or None for a gap."""
        views: dict[tuple[str, int], Picture] = {}
        if sheet.kind == "views":
            for frame in sheet.frames:
                if frame.view == 0:
                    views |= self._views(frame.image_id)
        return [
            views.get((frame.image_id, frame.view)) or self._picture(frame)
            for frame in sheet.frames
        ]

    def _picture(self, frame: Frame) -> Picture | None:
        if not frame.image_id:
            return None
        if self.files:
            return picture_from_fits(
                self.files[frame.image_id],
                self.settings.data_settings,
                self.settings.export_settings.gallery_stretch,
                SIDE,
            )
        return self._prepared(frame.image_id)

    def _prepared(self, image_id: str) -> Picture:
        fact, scale = self.facts[image_id], None
        if fact.pixel_scale_arcsec and fact.width and fact.height:
            scale = prepared_pixel_scale(
                fact.width, fact.height, fact.pixel_scale_arcsec, self.images.rules
            )
        return fit_into_frame(self.images.pixels(image_id), None, scale, SIDE)

    def _views(self, image_id: str) -> dict[tuple[str, int], Picture]:
        """An image as prepared, and two views; these have no scale of their own."""
        image = self.images.tensor(image_id)
        seed = random_key(self.settings.seed, image_id) % 2**63
        pair = augmented_views(image, self.training, seed, 2)
        found = {(image_id, 0): self._prepared(image_id)}
        for k, pixels in enumerate(pair, start=1):
            found[image_id, k] = fit_into_frame(pixels, None, None, SIDE)
        return found


def export_gallery(
    settings: Settings,
    datafile: str | Path,
    catalogue: str | Path,
    analysis: str | Path,
    tensors: Sequence[str | Path],
    model: str | Path,
    output: str | Path,
) -> None:
    """Write the folder.

    Parameters
    ----------
    settings : Settings
        `seed`, `data_settings`, `export_settings.gallery_images`,
        `export_settings.gallery_stretch` and `evaluation_settings.label` are used.
    datafile : path
        The file list; read where the pictures are drawn from the files.
    catalogue, analysis : path
        What `validate` and `analyse` wrote.
    tensors : sequence of path
        All shards, in the order of the list.
    model : path
        What `train` wrote; its settings make the views.
    output : path
        Folder to write anew: a PNG per sheet, `index.html`, `sheets.csv`.

    Raises
    ------
    AstromorphError
        The files do not belong together.
    """
    rules = settings.export_settings
    sheets = choose_sheets(analysis, rules.gallery_images, settings.seed)
    maps = choose_maps(analysis, catalogue, settings.evaluation_settings.label)
    drawn = [*(m.sheet for m in maps), *sheets]
    wanted = {f.image_id for s in drawn for f in s.frames if f.image_id}
    training = parse(read_model_file(model).settings, str(model))
    files: dict[str, tuple[str, ...]] = {}
    if rules.gallery_stretch != NETWORK:
        files = {
            entry.image_id: entry.paths
            for entry in read_filelist(datafile)
            if entry.image_id in wanted
        }
        _require(wanted, files, datafile, analysis)
    facts = {row["image_id"]: _fact(row) for row in _rows(catalogue, wanted)}
    _require(wanted, facts, catalogue, analysis)
    sources = Sources(find_images(tensors, wanted), files, facts, settings, training)
    with atomic_folder(output) as folder:
        for each in track(maps, len(maps), "pictures of the map"):
            path = folder / f"{each.sheet.name}.png"
            draw_map(path, each, sources.pictures(each.sheet))
        for sheet in track(sheets, len(sheets), "contact sheets"):
            names = [facts[f.image_id].name if f.image_id else "" for f in sheet.frames]
            path = folder / f"{sheet.name}.png"
            draw_sheet(path, sheet, sources.pictures(sheet), names)
            gc.collect()  # figures hold themselves and their pixels in circles
        artefacts.write_csv(
            folder / "sheets.csv", GALLERY_COLUMNS, _placed(sheets, facts)
        )
        _write_index(folder / "index.html", drawn, settings, sources.images)
    LOG.info("%s: %d sheets with %d images", output, len(drawn), len(wanted))


def _require(
    wanted: set[str],
    found: Mapping[str, Any],
    source: str | Path,
    analysis: str | Path,
) -> None:
    missing = sorted(wanted - set(found))
    if missing:
        raise AstromorphError(
            f"{source}: the image {missing[0]} of {analysis} is not in it; run "
            "validate and what follows again"
        )


def _rows(catalogue: str | Path, wanted: set[str]) -> Iterator[dict[str, str]]:
    for row in artefacts.read_csv(catalogue, CATALOGUE_COLUMNS):
        if row["image_id"] in wanted:
            yield row


def _fact(row: Mapping[str, str]) -> Fact:
    scale = row["pixel_scale_arcsec"]
    return Fact(
        name=row["object"] or Path(row["path"]).name,
        path=row["path"],
        width=int(row["width"] or 0),
        height=int(row["height"] or 0),
        pixel_scale_arcsec=float(scale) if scale else None,
    )


def _placed(
    sheets: Iterable[Sheet], facts: Mapping[str, Fact]
) -> Iterator[dict[str, Any]]:
    """A row per frame: what stands where."""
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
    path: Path, sheets: Sequence[Sheet], settings: Settings, images: NetworkImages
) -> None:
    """A page that shows all sheets and says how to read them."""
    kinds: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        kinds.setdefault(sheet.kind, []).append(sheet)
    write_page(
        path,
        "gallery.html",
        kinds=kinds,
        stretch=settings.export_settings.gallery_stretch,
        most_clusters=MAX_CLUSTERS,
        rules=images.rules,
    )
