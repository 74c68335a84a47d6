"""Contact sheets: the right images in the right frames, true scales, safe names."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy import visualization
from astropy.io import fits
from PIL import Image as Pillow

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import Analysis, write_analysis
from astromorph.artefacts.model_file import MODEL_FORMAT, MODEL_VERSION
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, GALLERY_COLUMNS
from astromorph.artefacts.tensor_shard import save_values
from astromorph.catalogue.validate import validate
from astromorph.errors import AstromorphError
from astromorph.export.gallery import contact_sheet
from astromorph.export.gallery.choice import MAX_CLUSTERS, Frame, Sheet, choose_sheets
from astromorph.export.gallery.contact_sheet import (
    BAD,
    EMPTY,
    LINES,
    SIDE,
    UNKNOWN,
    Layout,
    draw_sheet,
    printable,
    shorten_to_width,
)
from astromorph.export.gallery.fits_pictures import (
    Picture,
    apply_stretch,
    fit_into_frame,
    picture_from_fits,
)
from astromorph.export.gallery.gallery import export_gallery
from astromorph.export.gallery.network_pictures import augmented_views, find_images
from astromorph.export.gallery.scale_bars import choose_scale_bar, prepared_pixel_scale
from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import Shard
from astromorph.fits.image import read_image
from astromorph.fits.pixels import Image
from astromorph.preprocessing.prepare import prepare
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse
from astromorph.settings.sections import DataSettings, PreprocessSettings, Settings
from astromorph.settings.steps import part_of

NASTY = [
    "<script>alert(1)</script>", "$\\frac{1}{0}$", "two\nlines\x00\x1b[31m", "x" * 900,
    "銀河 \N{GRINNING FACE}", "$", "\udce9tat", "", "'); DROP TABLE", "{% raw %}",
]  # fmt: skip


def points_on_a_line(
    ids: list[str], clusters: list[int], neighbours: int = 3
) -> Analysis:
    """Findings about images on a line: neighbours in the list are neighbours."""
    number = len(ids)
    near = min(neighbours, number - 1)
    order = [sorted(range(number), key=lambda j: abs(j - k)) for k in range(number)]
    members = {c: [k for k in range(number) if clusters[k] == c] for c in clusters}
    roles = [""] * number
    for cluster, rows in members.items():
        if cluster >= 0:
            roles[rows[-1]] = "odd"
            roles[rows[len(rows) // 2]] = "representative"
    labels = np.array(clusters, np.int32)
    return Analysis(
        image_ids=tuple(ids),
        cluster=labels,
        kmeans=labels,
        hdbscan=labels,
        map=np.zeros((number, 2), np.float32),
        pca=np.zeros((number, 2), np.float32),
        outlier_score=np.arange(number, dtype=np.float32),
        outlier_rank=np.arange(number, 0, -1, dtype=np.int32),
        roles=tuple(roles),
        neighbours=tuple(tuple(ids[j] for j in o[1 : 1 + near]) for o in order),
        distances=np.array(
            [[abs(j - k) for j in o[1 : 1 + near]] for k, o in enumerate(order)],
            np.float32,
        ).reshape(number, near),
        duplicates=tuple(() for _ in ids),
    )


def names(number: int) -> list[str]:
    return [f"{k:016x}" for k in range(number)]


def chosen(tmp_path: Path, analysis: Analysis, images: int = 12) -> dict[str, Sheet]:
    """The sheets by name."""
    path = tmp_path / "analysis.parquet"
    write_analysis(path, analysis)
    return {sheet.name: sheet for sheet in choose_sheets(path, images, seed=1)}


def opened(path: Path, mode: str) -> np.ndarray:
    """The pixels of a PNG."""
    with Pillow.open(path) as picture:
        return np.asarray(picture.convert(mode))


def ids_of(sheet: Sheet) -> list[str]:
    return [frame.image_id for frame in sheet.frames]


def test_a_cluster_begins_in_its_middle_and_ends_with_the_odd_one(tmp_path):
    """The representative, its nearest of the same cluster, some by lot, the odd one."""
    ids = names(60)
    sheets = chosen(tmp_path, points_on_a_line(ids, [0] * 40 + [1] * 20))
    sheet = sheets["cluster_00"]
    assert sheet.title == "Cluster 0: 12 of 40 images"
    shown = ids_of(sheet)
    assert len(shown) == len(set(shown)) == 12
    assert shown[:4] == [ids[20], ids[19], ids[21], ids[18]]
    assert shown[-1] == ids[39]
    assert set(shown) <= set(ids[:40])
    marks = [frame.mark for frame in sheet.frames]
    assert marks == ["representative", *[""] * 10, "odd"]
    assert set(ids_of(sheets["cluster_01"])) <= set(ids[40:])


def test_neighbours_of_another_cluster_are_not_of_its_middle(tmp_path):
    """At the border of two clusters, only members count as near the middle."""
    ids = names(7)
    analysis = points_on_a_line(ids, [0, 0, 0, 1, 1, 1, 1])
    sheet = chosen(tmp_path, analysis)["cluster_00"]
    assert sorted(ids_of(sheet)) == ids[:3]
    near = {f.image_id for f in sheet.frames if f.note == "near the middle"}
    assert near == {ids[0]}


def test_what_is_drawn_by_lot_depends_on_the_seed_alone(tmp_path):
    """The same seed gives the same images; another gives others."""
    path = tmp_path / "analysis.parquet"
    write_analysis(path, points_on_a_line(names(200), [-1] * 200))
    first, again, other = (
        ids_of(choose_sheets(path, 12, seed)[0]) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_outliers_stand_by_rank(tmp_path):
    """The oddest first, with rank and score."""
    ids = names(30)
    sheet = chosen(tmp_path, points_on_a_line(ids, [0] * 30))["outliers"]
    assert ids_of(sheet) == ids[:-13:-1]
    assert sheet.frames[0].note == "1: score 29"


def test_each_row_of_neighbours_is_an_example_with_its_distances(tmp_path):
    """A representative, then its neighbours in their order, one row each."""
    ids = names(40)
    sheets = chosen(tmp_path, points_on_a_line(ids, [0] * 24 + [1] * 16, 6))
    sheet = sheets["neighbours_1"]
    assert sheet.columns == sheet.group == 5
    first = sheet.frames[:5]
    assert [f.image_id for f in first] == [ids[k] for k in (12, 11, 13, 10, 14)]
    assert [f.note for f in first] == [
        "cluster 0", "distance 1", "distance 1", "distance 2", "distance 2",
    ]  # fmt: skip
    assert sheet.frames[5].image_id == ids[32]


def test_near_duplicates_are_pairs_the_nearest_first(tmp_path):
    """Each pair once, whichever of the two names the other."""
    ids = names(12)
    analysis = points_on_a_line(ids, [0] * 12, 4)
    found: list[tuple[str, ...]] = [()] * 12
    found[3], found[4], found[8], found[2] = (ids[4],), (ids[3],), (ids[10],), (ids[9],)
    analysis = replace(analysis, duplicates=tuple(found))
    sheet = chosen(tmp_path, analysis)["duplicates"]
    assert ids_of(sheet) == [ids[k] for k in (3, 4, 8, 10, 2, 9)]
    notes = [frame.note for frame in sheet.frames[::2]]
    assert notes == ["distance 1", "distance 2", "nearly the same"]
    assert sheet.columns % 2 == 0
    assert "duplicates" not in chosen(tmp_path, points_on_a_line(ids, [0] * 12))


def test_views_are_triples_of_one_image(tmp_path):
    """The image and two views of it, side by side."""
    sheet = chosen(tmp_path, points_on_a_line(names(30), [0] * 30))["views"]
    assert sheet.columns % 3 == 0
    assert [f.view for f in sheet.frames] == [0, 1, 2] * 4
    assert all(len(set(ids_of(sheet)[k : k + 3])) == 1 for k in range(0, 12, 3))


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ([0], {"cluster_00", "outliers", "views"}),
        ([-1] * 6, {"cluster_none", "outliers", "neighbours_1", "views"}),
        ([0] * 6, {"cluster_00", "outliers", "neighbours_1", "views"}),
    ],
    ids=["one image", "all noise", "one cluster"],
)
def test_few_or_no_clusters_leave_sheets_out(tmp_path, clusters, expected):
    """A sheet with nothing to show is not there; the others are."""
    sheets = chosen(tmp_path, points_on_a_line(names(len(clusters)), clusters))
    assert set(sheets) == expected
    assert ids_of(sheets[min(expected)])


def test_many_clusters_and_images_stay_within_the_limits(tmp_path):
    """The largest clusters have a sheet; none has more images than are asked for."""
    clusters = [k % 90 for k in range(1800)]
    sheets = chosen(tmp_path, points_on_a_line(names(1800), clusters))
    drawn = [name for name in sheets if name.startswith("cluster")]
    assert drawn == [f"cluster_{k:02d}" for k in range(MAX_CLUSTERS)]
    assert sum(name.startswith("neighbours") for name in sheets) == 4
    assert max(len(sheet.frames) for sheet in sheets.values()) <= 12


@pytest.mark.parametrize(
    ("rules", "shape", "expected"),
    [
        ({"size": 64}, (100, 100), 2 * 100 / 64),
        ({"size": 64}, (100, 50), 2 * 100 / 64),
        ({"size": 64, "fit": "crop"}, (100, 50), 2 * 50 / 64),
        ({"size": 64, "fit": "squeeze"}, (100, 50), 2 * 50 / 64),
        ({"size": 64, "crop_fraction": 0.5}, (100, 100), 2 * 50 / 64),
        ({"size": "native"}, (100, 70), 2.0),
        ({"size": "native", "crop_fraction": 0.5}, (100, 70), 2.0),
        ({"size": 64, "crop": "source"}, (100, 100), None),
    ],
)
def test_the_scale_of_a_prepared_image(rules, shape, expected):
    """Arcsec per pixel of the tensor, whatever was cropped, padded or squeezed."""
    found = prepared_pixel_scale(shape[1], shape[0], 2.0, PreprocessSettings(**rules))
    assert found == pytest.approx(expected, rel=0.02) if expected else found is None


@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze"])
@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_two_stars_are_as_far_apart_as_the_scale_says(fit, fraction):
    """The distance of two points, measured in the tensor, is the one on the sky."""
    pixels = np.zeros((1, 200, 160), np.float32)
    pixels[0, 95:105, 55:60] = 1
    pixels[0, 95:105, 95:100] = 1
    rules = PreprocessSettings(
        size=64, fit=fit, crop_fraction=fraction, interval="minmax", stretch="linear"
    )
    plane = prepare(Image(pixels, np.zeros((200, 160), np.bool_)), rules).pixels[0]
    columns = np.arange(64)
    profile = plane.sum(axis=0)
    middle = (columns * profile).sum() / profile.sum()
    centres = [
        (columns[part] * profile[part]).sum() / profile[part].sum()
        for part in (columns < middle, columns > middle)
    ]
    scale = prepared_pixel_scale(160, 200, 0.5, rules)
    assert (centres[1] - centres[0]) * scale == pytest.approx(40 * 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("arcsec_per_pixel", "label", "arcsec"),
    [
        (0.5, "30″", 30), (0.26, "10″", 10), (1e-4, "5 mas", 0.005), (1.0, "1′", 60),
        (0.01, "500 mas", 0.5), (60.0, "1°", 3600), (4000.0, "50°", 180_000),
        (40.0, "30′", 1800), (20.0, "20′", 1200),
    ],
)  # fmt: skip
def test_scale_bars_are_round(arcsec_per_pixel, label, arcsec):
    """The longest round angle up to 0.4 of the width, with the usual unit."""
    bar = choose_scale_bar(arcsec_per_pixel, 160)
    assert (bar.label, bar.arcsec) == (label, pytest.approx(arcsec))
    assert bar.pixels * arcsec_per_pixel == pytest.approx(arcsec)
    assert bar.pixels <= 64


@pytest.mark.parametrize("scale", [None, 0.0, -1.0, math.nan, math.inf, 1e-9])
def test_without_a_scale_there_is_no_bar(scale):
    """An unknown or senseless scale draws nothing."""
    assert choose_scale_bar(scale, 160) is None


def test_a_bar_of_a_file_has_the_length_that_the_wcs_says(tmp_path):
    """On the drawn sheet, the white line is as long as the label says."""
    path = tmp_path / "a.fits"
    header = fits.Header()
    for k, (kind, step) in enumerate((("RA---TAN", -1), ("DEC--TAN", 1)), start=1):
        header[f"CTYPE{k}"], header[f"CDELT{k}"] = kind, step * 0.5 / 3600
        header[f"CRPIX{k}"], header[f"CRVAL{k}"] = 40.0, 10.0
    pixels = np.zeros((80, 80), np.float32)
    pixels[40, 40] = 1
    fits.PrimaryHDU(pixels, header).writeto(path)
    picture = picture_from_fits([path], DataSettings(), "linear", SIDE)
    assert picture.arcsec_per_pixel == pytest.approx(0.25, rel=1e-6)
    sheet = Sheet("s", "clusters", "s", 3, (Frame("a"),))
    draw_sheet(tmp_path / "s.png", sheet, [picture], ["a"])
    drawn = opened(tmp_path / "s.png", "L")
    left, top = Layout(3, 1, 1).place(0)
    frame = drawn[top : top + SIDE, left : left + SIDE]
    # The bar is 10 arcsec, 40 pixels of the sheet; edges are smooth.
    assert (frame[SIDE - 20 : SIDE - 4] > 200).sum(axis=1).max() == pytest.approx(
        40, abs=2
    )


@pytest.mark.parametrize(
    ("name", "stretch"),
    [
        ("linear", visualization.LinearStretch()),
        ("sqrt", visualization.SqrtStretch()),
        ("asinh", visualization.AsinhStretch()),
        ("log", visualization.LogStretch()),
        ("zscale", visualization.LinearStretch()),
    ],
)
def test_stretches_are_those_of_astropy(name, stretch):
    """What ImageNormalize gives for the same pixels, bad ones left out."""
    rng = np.random.default_rng(0)
    pixels = rng.gamma(0.5, size=(1, 30, 40)).astype(np.float32)
    mask = rng.random((30, 40)) < 0.2
    pixels[0, mask] = 0
    interval = (
        visualization.ZScaleInterval()
        if name == "zscale"
        else visualization.AsymmetricPercentileInterval(0.5, 99.5)
    )
    good = pixels[0][~mask].astype(np.float64)
    norm = visualization.ImageNormalize(
        good, interval=interval, stretch=stretch, clip=True
    )
    found = apply_stretch(Image(pixels, mask), name)[~mask]
    np.testing.assert_allclose(found, norm(good), atol=1e-6)


def test_channels_are_averaged_after_their_own_stretch():
    """A channel in larger units does not hide the others."""
    rng = np.random.default_rng(1)
    plane = rng.random((20, 20)).astype(np.float32)
    mask = np.zeros((20, 20), np.bool_)
    both = apply_stretch(Image(np.stack([plane, 1000 * plane]), mask), "linear")
    alone = apply_stretch(Image(plane[None], mask), "linear")
    np.testing.assert_allclose(both, alone, atol=1e-5)


def test_a_constant_image_is_black_not_an_error():
    """There is no range to stretch."""
    image = Image(np.full((1, 9, 9), 7, np.float32), np.zeros((9, 9), np.bool_))
    assert (apply_stretch(image, "asinh") == 0).all()


def test_frames_keep_the_aspect_and_show_what_is_bad():
    """The longer side fills the frame; a pixel without a value is NaN."""
    pixels = np.ones((40, 20), np.float32)
    mask = np.zeros((40, 20), np.bool_)
    mask[:20] = True
    picture = fit_into_frame(pixels, mask, 2.0, 160)
    assert picture.pixels.shape == (160, 80)
    assert np.isnan(picture.pixels[:70]).all()
    assert np.isfinite(picture.pixels[90:]).all()
    assert picture.arcsec_per_pixel == pytest.approx(0.5)


def test_the_first_row_is_at_the_bottom_and_gaps_stay_white(tmp_path):
    """Orientation, colours of bad pixels and of missing pictures on the sheet."""
    pixels = np.zeros((SIDE, SIDE), np.float32)
    pixels[: SIDE // 2] = 1
    pixels[-1] = np.nan
    frames = (Frame("a"), Frame("b"), Frame(""))
    pictures = [Picture(pixels), Picture(None, problem="there is no such file"), None]
    sheet = Sheet("s", "clusters", "title", 3, frames)
    draw_sheet(tmp_path / "s.png", sheet, pictures, ["a", "b", ""])
    drawn = opened(tmp_path / "s.png", "RGB")
    layout = Layout(3, 1, 3)
    assert drawn.shape[1::-1] == layout.size
    left, top = layout.place(0)
    assert (drawn[top, left : left + SIDE] == BAD).all()
    assert (drawn[top + 10, left : left + SIDE] == 0).all()
    assert (drawn[top + SIDE - 40, left : left + SIDE] == 255).all()
    left, top = layout.place(1)
    frame = drawn[top : top + SIDE, left : left + SIDE]
    assert (frame[-10:] == EMPTY).all()
    assert (frame[15:35] > 150).any()  # the reason is written there
    left, top = layout.place(2)
    assert (drawn[top : top + SIDE + LINES, left : left + SIDE] == 255).all()


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_are_harmless_text(tmp_path, name):
    """One line that fits, in signs that the font has; no mathematics, no warning."""
    words = shorten_to_width(printable(name), 8, SIDE)
    assert words.isprintable()
    assert len(words) <= 81
    assert contact_sheet._width(words, 8) <= SIDE
    sheet = Sheet("s", "clusters", name, 3, (Frame("a", name),))
    picture = Picture(None, problem=name)
    draw_sheet(tmp_path / "s.png", sheet, [picture], [name])
    drawn = opened(tmp_path / "s.png", "L")
    assert drawn.shape[::-1] == Layout(3, 1, 1).size


def test_signs_that_the_font_lacks_are_shown_as_such():
    """A box stands for each."""
    assert printable("a\n銀\udce9") == "a" + 3 * UNKNOWN


def save_model(path: Path, changes: dict) -> None:
    """A model file with the settings of a training; its weights are of no use here."""
    settings = part_of(parse(changes, "test"), "train")
    values = {
        "format": MODEL_FORMAT, "format_version": MODEL_VERSION, "state": {},
        "package_version": "0", "settings": settings, "in_channels": 1,
        "tensor_settings": "{}", "data_digest": "", "versions": {"torch": "0"},
    }  # fmt: skip
    save_values(path, values)


class Run:
    """A folder with what the gallery reads, of simulated images."""

    def __init__(self, folder: Path, sky: Path, settings: Settings) -> None:
        self.folder, self.sky, self.settings = folder, sky, settings
        (folder / "tensors").symlink_to(folder)
        files = RunFiles(folder)
        data, preprocessing = settings.data_settings, settings.preprocess_settings
        validate(sky, files, data, settings.validate_settings, preprocessing)
        self.tensors = []
        number = sum(1 for _ in read_filelist(sky))
        for k, start in enumerate(range(0, number, 16)):
            self.tensors.append(folder / f"{k:05d}.pt")
            shard = Shard(f"{k:05d}", start, min(start + 16, number))
            preprocess(sky, shard, files, data, preprocessing)
        save_model(folder / "model.pt", {})
        self.ids = [entry.image_id for entry in read_filelist(sky)]
        self.analyse([k % 3 for k in range(number)])

    def analyse(self, clusters: list[int]) -> None:
        """Write an analysis with one pair of near-duplicates."""
        analysis = points_on_a_line(self.ids, clusters)
        pair = (self.ids[1],), (self.ids[0],)
        duplicates = (*pair, *analysis.duplicates[2:])
        write_analysis(
            self.folder / "analysis.parquet", replace(analysis, duplicates=duplicates)
        )

    def export(self, name: str, **changes: object) -> Path:
        """Make a gallery of six images a sheet."""
        export = {"gallery_images": 6, **changes}
        values = self.settings.model_dump(mode="json") | {"export_settings": export}
        output = self.folder / name
        export_gallery(
            parse(values, "test"), self.sky, self.folder / "catalogue.csv",
            self.folder / "analysis.parquet", self.tensors, self.folder / "model.pt",
            output,
        )  # fmt: skip
        return output


@pytest.fixture(scope="module")
def run(tmp_path_factory, sky, settings) -> Run:
    return Run(tmp_path_factory.mktemp("gallery"), sky, settings)


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "sheets.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_sheets_page_and_table(run):
    """A PNG per sheet, shown by the page, and a row per frame in the table."""
    folder = run.export("whole")
    found = {path.stem for path in folder.glob("*.png")}
    assert found == {
        "cluster_00", "cluster_01", "cluster_02", "outliers", "neighbours_1",
        "neighbours_2", "neighbours_3", "duplicates", "views", "map_clusters",
        "map_label",
    }  # fmt: skip
    page = (folder / "index.html").read_text()
    assert all(f'<img src="{name}.png"' in page for name in found)
    placed = table(folder)
    assert list(placed[0]) == list(GALLERY_COLUMNS)
    assert {row["sheet"] for row in placed} == found - {"map_clusters", "map_label"}
    assert {row["image_id"] for row in placed} <= set(run.ids)
    assert placed[0]["object"].startswith("SKY ")
    assert not list(run.folder.glob(".whole*"))


def test_the_same_input_gives_the_same_bytes(run):
    """No date, no program's name, no font or setting of the machine."""
    first, again = run.export("first"), run.export("again")
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "text.usetex": True, "lines.linewidth": 9}):
        other = run.export("other")
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    text = (first / "outliers.png").read_bytes()
    assert b"tEXt" not in text


def test_frames_show_the_images_that_the_table_names(run):
    """A frame of the first sheet holds the tensor of its image, enlarged."""
    folder = run.export("shown")
    row = next(r for r in table(folder) if r["sheet"] == "outliers")
    images = find_images(run.tensors, {row["image_id"]})
    expected = fit_into_frame(images.pixels(row["image_id"]), None, None, SIDE).pixels[
        ::-1
    ]
    drawn = opened(folder / "outliers.png", "L")
    left, top = Layout(3, 1, 6).place(0)
    frame = drawn[top : top + 100, left : left + SIDE]  # above the scale bar
    np.testing.assert_allclose(frame, 255 * expected[:100], atol=0.51)


@pytest.mark.parametrize("stretch", ["linear", "zscale"])
def test_pictures_from_files_are_in_full_resolution(run, stretch):
    """They are read anew, and differ from what the network saw."""
    folder = run.export(f"files {stretch}", gallery_stretch=stretch)
    row = next(r for r in table(folder) if r["sheet"] == "outliers")
    _, image = read_image([row["path"]], DataSettings())
    expected = fit_into_frame(
        apply_stretch(image, stretch), image.mask, None, SIDE
    ).pixels
    drawn = opened(folder / "outliers.png", "L")
    left, top = Layout(3, 1, 6).place(0)
    y, x = ((SIDE - n) // 2 for n in expected.shape)
    frame = drawn[top + y : top + y + 90, left + x : left + x + expected.shape[1]]
    known = np.isfinite(expected[::-1][:90])
    difference = np.abs(frame - 255 * expected[::-1][:90])[known]
    assert difference.max() < 0.51


def test_a_file_that_is_gone_is_an_empty_frame_with_the_reason(run, tmp_path):
    """The other pictures are drawn; the reason stands in the frame."""
    assert picture_from_fits([tmp_path / "no.fits"], DataSettings(), "log", SIDE) == (
        Picture(None, problem="there is no such file")
    )
    row = next(r for r in table(run.export("before")) if r["sheet"] == "outliers")
    hidden = Path(row["path"]).rename(Path(row["path"]).with_suffix(".away"))
    try:
        folder = run.export("gone", gallery_stretch="asinh")
    finally:
        hidden.rename(row["path"])
    drawn = opened(folder / "outliers.png", "RGB")
    left, top = Layout(3, 1, 6).place(0)
    assert (drawn[top + 100 : top + SIDE, left : left + SIDE] == EMPTY).all()
    left, top = Layout(3, 1, 6).place(1)
    assert (drawn[top : top + SIDE, left : left + SIDE] != EMPTY).any()


def test_images_of_their_own_size_are_drawn(tmp_path, sky):
    """With `size: native`, oblong images keep their aspect."""
    rules = {"preprocess_settings": {"size": "native", "shard_size": 16}}
    native = Run(tmp_path, sky, parse(rules, "test"))
    folder = native.export("gallery")
    assert len(list(folder.glob("*.png"))) == 11
    images = find_images(native.tensors, set(native.ids))
    shapes = {images.pixels(image_id).shape for image_id in native.ids}
    assert len(shapes) > 3


def test_nasty_names_pass_through_page_and_table(run, tmp_path):
    """In the catalogue: no frame fails, the page holds no markup of theirs."""
    catalogue = run.folder / "catalogue.csv"
    kept = catalogue.read_bytes()
    rows = list(artefacts.read_csv(catalogue))
    for row, name in zip(rows, NASTY * 3, strict=False):
        row["object"] = name.encode("utf-8", "replace").decode()
    try:
        columns = [*CATALOGUE_COLUMNS, *artefacts.list_columns(catalogue)]
        artefacts.write_csv(catalogue, columns, rows)
        folder = run.export("nasty")
    finally:
        catalogue.write_bytes(kept)
    assert "alert" not in (folder / "index.html").read_text()
    said = {row["object"] for row in artefacts.read_csv(folder / "sheets.csv")}
    assert "<script>alert(1)</script>" in said


def test_an_analysis_of_other_images_is_refused(run, tmp_path):
    """The message names the file, the image and what to do."""
    analysis = points_on_a_line(["f" * 16], [0])
    write_analysis(run.folder / "analysis.parquet", analysis)
    try:
        with pytest.raises(AstromorphError, match=r"catalogue\.csv: the image f+ of"):
            run.export("other")
    finally:
        run.analyse([k % 3 for k in range(len(run.ids))])
    with pytest.raises(AstromorphError, match=r"00000\.pt: the image f+ .* none of"):
        find_images(run.tensors, {"f" * 16})


def test_views_are_those_of_the_training():
    """Still views give the image back; others differ, the same with one seed."""
    still = {
        "rotation": False, "flip": False, "scale": (1.0, 1.0), "shift": 0.0,
        "gamma": 0.0, "contrast": 0.0, "brightness": 0.0, "blur": 0.0, "noise": 0.0,
        "channel_gain": 0.0,
    }  # fmt: skip
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = parse({"augmentation_settings": still}, "test")
    for view in augmented_views(image, settings, 5, 2):
        np.testing.assert_allclose(view, image[0], atol=1e-5)
    strong = parse({"data_settings": {"stacksize": 3}}, "test")
    one, other = augmented_views(image, strong, 5, 2)
    again = augmented_views(image, strong, 5, 2)
    assert np.abs(one - other).mean() > 0.01
    np.testing.assert_array_equal(np.stack([one, other]), np.stack(again))


def test_the_png_holds_no_date(tmp_path):
    """Bytes that depend on the content alone."""
    sheet = Sheet("s", "clusters", "s", 3, (Frame("a"),))
    for name in ("a", "b"):
        draw_sheet(
            tmp_path / name, sheet, [Picture(np.eye(9, dtype=np.float32))], ["x"]
        )
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    with Pillow.open(io.BytesIO(data)) as picture:
        assert set(picture.info) <= {"dpi"}
