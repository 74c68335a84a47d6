"""Contact sheets: images in their frames, correct scales, unusual names."""

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy import visualization
from astropy.io import fits
from PIL import Image as Pillow
from PIL import ImageColor

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import Analysis, write_analysis
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, GALLERY_COLUMNS
from astromorph.artefacts.model_file import MODEL_FORMAT, MODEL_VERSION
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import save_values
from astromorph.catalogue.validate import validate
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import (
    CAPTION,
    SIDE,
    Layout,
    draw_sheet,
)
from astromorph.export.gallery.drawing import (
    BAD_PIXEL,
    DARK,
    REPLACEMENT,
    printable,
    shorten_to_width,
    text_width,
)
from astromorph.export.gallery.gallery import export_gallery
from astromorph.export.gallery.pictures import (
    Picture,
    apply_stretch,
    augmented_views,
    find_images,
    fit_into_frame,
    picture_from_fits,
)
from astromorph.export.gallery.sheets import MAX_CLUSTERS, Frame, Sheet, choose_sheets
from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import Shard
from astromorph.fits.image import read_image
from astromorph.fits.pixels import Image
from astromorph.pages.scale_bar import choose_scale_bar
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.preprocessing.preprocess import preprocess
from astromorph.preprocessing.resample import prepared_pixel_scale
from astromorph.settings.loading import parse
from astromorph.settings.sections import (
    AugmentationSettings,
    DataSettings,
    ExportSettings,
    PreprocessSettings,
    Settings,
)
from astromorph.settings.steps import part_of

UNUSUAL_NAMES = [
    "<script>alert(1)</script>", "$\\frac{1}{0}$", "two\nlines\x00\x1b[31m", "x" * 900,
    "銀河 \N{GRINNING FACE}", "$", "\udce9tat", "", "'); DROP TABLE", "{% raw %}",
]  # fmt: skip


def points_on_a_line(
    ids: list[str], clusters: list[int], neighbours: int = 3
) -> Analysis:
    """An analysis of images on a line: neighbours in the list are neighbours."""
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


def make_ids(number: int) -> list[str]:
    return [f"{k:016x}" for k in range(number)]


def sheets_by_name(
    tmp_path: Path, analysis: Analysis, images: int = 12
) -> dict[str, Sheet]:
    """The sheets of an analysis, by name."""
    path = tmp_path / "analysis.parquet"
    write_analysis(path, analysis)
    return {sheet.name: sheet for sheet in choose_sheets(path, images, seed=1)}


def read_pixels(path: Path, mode: str) -> np.ndarray:
    """The pixels of a PNG."""
    with Pillow.open(path) as picture:
        return np.asarray(picture.convert(mode))


def to_rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)


def ids_of(sheet: Sheet) -> list[str]:
    return [frame.image_id for frame in sheet.frames]


def test_a_cluster_sheet_starts_with_the_representative(
    tmp_path,
):
    """Followed by its neighbours in the cluster, a random sample, the least typical."""
    ids = make_ids(60)
    sheets = sheets_by_name(tmp_path, points_on_a_line(ids, [0] * 40 + [1] * 20))
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


def test_images_of_another_cluster_are_not_near_the_representative(tmp_path):
    """At the border of two clusters, only members of the same cluster are shown."""
    ids = make_ids(7)
    analysis = points_on_a_line(ids, [0, 0, 0, 1, 1, 1, 1])
    sheet = sheets_by_name(tmp_path, analysis)["cluster_00"]
    assert sorted(ids_of(sheet)) == ids[:3]
    near = {f.image_id for f in sheet.frames if f.note == "near the representative"}
    assert near == {ids[0]}


def test_the_random_sample_only_depends_on_the_seed(tmp_path):
    """The same seed gives the same images, another seed others."""
    path = tmp_path / "analysis.parquet"
    write_analysis(path, points_on_a_line(make_ids(200), [-1] * 200))
    first, again, other = (
        ids_of(choose_sheets(path, 12, seed)[0]) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_outliers_are_sorted_by_rank(tmp_path):
    """The highest score is first; notes show rank and score."""
    ids = make_ids(30)
    sheet = sheets_by_name(tmp_path, points_on_a_line(ids, [0] * 30))["outliers"]
    assert ids_of(sheet) == ids[:-13:-1]
    assert sheet.frames[0].note == "1: score 29"


def test_each_row_of_neighbours_starts_with_an_example(tmp_path):
    """A representative, followed by its neighbours by distance."""
    ids = make_ids(40)
    sheets = sheets_by_name(tmp_path, points_on_a_line(ids, [0] * 24 + [1] * 16, 6))
    sheet = sheets["neighbours_1"]
    assert sheet.columns == sheet.group_size == 5
    first = sheet.frames[:5]
    assert [f.image_id for f in first] == [ids[k] for k in (12, 11, 13, 10, 14)]
    distances = ["distance 1", "distance 1", "distance 2", "distance 2"]
    assert [f.note for f in first] == ["cluster 0", *distances]
    assert sheet.frames[5].image_id == ids[32]


def test_near_duplicates_are_sorted_by_distance(tmp_path):
    """Each pair appears once, even if only one image lists the other."""
    ids = make_ids(12)
    analysis = points_on_a_line(ids, [0] * 12, 4)
    duplicates: list[tuple[str, ...]] = [()] * 12
    duplicates[3], duplicates[4] = (ids[4],), (ids[3],)
    duplicates[8], duplicates[2] = (ids[10],), (ids[9],)
    analysis = replace(analysis, duplicates=tuple(duplicates))
    sheet = sheets_by_name(tmp_path, analysis)["duplicates"]
    assert ids_of(sheet) == [ids[k] for k in (3, 4, 8, 10, 2, 9)]
    notes = [frame.note for frame in sheet.frames[::2]]
    assert notes == ["distance 1", "distance 2", "near-duplicate"]
    assert sheet.columns % 2 == 0
    assert "duplicates" not in sheets_by_name(tmp_path, points_on_a_line(ids, [0] * 12))


def test_each_image_is_shown_with_two_views(tmp_path):
    """Side by side, in whole rows."""
    sheet = sheets_by_name(tmp_path, points_on_a_line(make_ids(30), [0] * 30))["views"]
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
def test_sheets_without_images_are_left_out(tmp_path, clusters, expected):
    """With few images or no clusters there are fewer sheets."""
    sheets = sheets_by_name(
        tmp_path, points_on_a_line(make_ids(len(clusters)), clusters)
    )
    assert set(sheets) == expected
    assert ids_of(sheets[min(expected)])


def test_the_number_of_sheets_and_frames_is_limited(tmp_path):
    """Only the largest clusters have a sheet, with at most 12 images."""
    clusters = [k % 90 for k in range(1800)]
    sheets = sheets_by_name(tmp_path, points_on_a_line(make_ids(1800), clusters))
    cluster_sheets = [name for name in sheets if name.startswith("cluster")]
    assert cluster_sheets == [f"cluster_{k:02d}" for k in range(MAX_CLUSTERS)]
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
def test_pixel_scale_of_prepared_images(rules, shape, expected):
    """Cropping, padding and squeezing are taken into account."""
    scale = prepared_pixel_scale(shape[1], shape[0], 2.0, PreprocessSettings(**rules))
    assert scale == pytest.approx(expected, rel=0.02) if expected else scale is None


@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze"])
@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_pixel_scale_gives_the_distance_of_two_stars(fit, fraction):
    """The distance measured in the tensor is that on the sky."""
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
    """The longest round angle that is at most 0.4 of the width, in the usual unit."""
    bar = choose_scale_bar(arcsec_per_pixel, 160)
    assert (bar.label, bar.arcsec) == (label, pytest.approx(arcsec))
    assert bar.pixels * arcsec_per_pixel == pytest.approx(arcsec)
    assert bar.pixels <= 64


@pytest.mark.parametrize("scale", [None, 0.0, -1.0, math.nan, math.inf, 1e-9])
def test_there_is_no_scale_bar_without_a_valid_scale(scale):
    """Unknown, zero, negative and infinite scales."""
    assert choose_scale_bar(scale, 160) is None


def test_the_scale_bar_matches_the_wcs(tmp_path):
    """The white line on the sheet has the length on its label."""
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
    pixels = read_pixels(tmp_path / "s.png", "L")
    left, top = Layout(3, 1, 1).position(0)
    frame = pixels[top : top + SIDE, left : left + SIDE]
    # The bar is 10 arcsec, 40 pixels of the sheet; its ends are antialiased.
    length = (frame[SIDE - 20 : SIDE - 4] > 200).sum(axis=1).max()
    assert length == pytest.approx(40, abs=2)


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
    """Equal to `ImageNormalize` of the valid pixels."""
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
    stretched = apply_stretch(Image(pixels, mask), name)[~mask]
    np.testing.assert_allclose(stretched, norm(good), atol=1e-6)


def test_channels_are_stretched_separately_and_averaged():
    """A channel in larger units does not dominate the others."""
    rng = np.random.default_rng(1)
    plane = rng.random((20, 20)).astype(np.float32)
    mask = np.zeros((20, 20), np.bool_)
    both = apply_stretch(Image(np.stack([plane, 1000 * plane]), mask), "linear")
    alone = apply_stretch(Image(plane[None], mask), "linear")
    np.testing.assert_allclose(both, alone, atol=1e-5)


def test_a_constant_image_is_black():
    """It has no range to stretch, which is not an error."""
    image = Image(np.full((1, 9, 9), 7, np.float32), np.zeros((9, 9), np.bool_))
    assert (apply_stretch(image, "asinh") == 0).all()


def test_pictures_keep_the_aspect_ratio_and_bad_pixels():
    """The longer side fills the frame; pixels without a value are NaN."""
    pixels = np.ones((40, 20), np.float32)
    mask = np.zeros((40, 20), np.bool_)
    mask[:20] = True
    picture = fit_into_frame(pixels, mask, 2.0, 160)
    assert picture.pixels.shape == (160, 80)
    assert np.isnan(picture.pixels[:70]).all()
    assert np.isfinite(picture.pixels[90:]).all()
    assert picture.arcsec_per_pixel == pytest.approx(0.5)


def test_orientation_and_colours_of_frames(tmp_path):
    """The first row is at the bottom; bad pixels, missing pictures, empty frames."""
    pixels = np.zeros((SIDE, SIDE), np.float32)
    pixels[: SIDE // 2] = 1
    pixels[-1] = np.nan
    frames = (Frame("a"), Frame("b"), Frame(""))
    pictures = [Picture(pixels), Picture(None, problem="there is no such file"), None]
    sheet = Sheet("s", "clusters", "title", 3, frames)
    draw_sheet(tmp_path / "s.png", sheet, pictures, ["a", "b", ""])
    sheet_pixels = read_pixels(tmp_path / "s.png", "RGB")
    layout = Layout(3, 1, 3)
    assert sheet_pixels.shape[1::-1] == layout.size
    left, top = layout.position(0)
    assert (sheet_pixels[top, left : left + SIDE] == BAD_PIXEL).all()
    assert (sheet_pixels[top + 10, left : left + SIDE] == 0).all()
    assert (sheet_pixels[top + SIDE - 40, left : left + SIDE] == 255).all()
    left, top = layout.position(1)
    frame = sheet_pixels[top : top + SIDE, left : left + SIDE]
    assert (frame[-10:] == to_rgb(DARK)).all()
    assert (frame[15:35] > 150).any()  # text: the reason
    left, top = layout.position(2)
    assert (sheet_pixels[top : top + SIDE + CAPTION, left : left + SIDE] == 255).all()


@pytest.mark.parametrize("name", UNUSUAL_NAMES)
def test_unusual_names_are_drawn_as_plain_text(tmp_path, name):
    """One line that fits, in characters of the font; no mathematics, no warning."""
    text = shorten_to_width(printable(name), 8, SIDE)
    assert text.isprintable()
    assert len(text) <= 81
    assert text_width(text, 8) <= SIDE
    sheet = Sheet("s", "clusters", name, 3, (Frame("a", name),))
    picture = Picture(None, problem=name)
    draw_sheet(tmp_path / "s.png", sheet, [picture], [name])
    pixels = read_pixels(tmp_path / "s.png", "L")
    assert pixels.shape[::-1] == Layout(3, 1, 1).size


def test_characters_that_are_not_in_the_font_are_replaced():
    """Each becomes a box."""
    assert printable("a\n銀\udce9") == "a" + 3 * REPLACEMENT


def save_model(path: Path, changes: dict) -> None:
    """Write a model file with settings of training and without weights."""
    settings = part_of(parse(changes, "test"), "train")
    values = {
        "format": MODEL_FORMAT, "format_version": MODEL_VERSION, "state": {},
        "package_version": "0", "settings": settings, "in_channels": 1,
        "tensor_settings": "{}", "data_digest": "", "versions": {"torch": "0"},
    }  # fmt: skip
    save_values(path, values)


class Run:
    """The files that the gallery reads, for simulated images."""

    def __init__(self, folder: Path, sky: Path, settings: Settings) -> None:
        self.sky, self.settings = sky, settings
        self.ids = [entry.image_id for entry in read_filelist(sky)]
        number = len(self.ids)
        self.files = RunFiles.of_run(folder, shards=-(-number // 16))
        data, preprocessing = settings.data_settings, settings.preprocess_settings
        validate(sky, self.files, data, settings.validate_settings, preprocessing)
        for k, name in enumerate(self.files.shards):
            shard = Shard(name, 16 * k, min(16 * k + 16, number))
            preprocess(sky, shard, self.files, data, preprocessing)
        self.files.model.parent.mkdir()
        save_model(self.files.model, {})
        self.analyse([k % 3 for k in range(number)])

    def analyse(self, clusters: list[int]) -> None:
        """Write an analysis with one pair of near-duplicates."""
        analysis = points_on_a_line(self.ids, clusters)
        pair = (self.ids[1],), (self.ids[0],)
        duplicates = (*pair, *analysis.duplicates[2:])
        write_analysis(self.files.analysis, replace(analysis, duplicates=duplicates))

    def export(self, name: str, **changes: object) -> Path:
        """Export a gallery with six images on a sheet, and move it to a folder."""
        rules = ExportSettings.model_validate({"gallery_images": 6, **changes})
        data, label = self.settings.data_settings, "label"
        seed = self.settings.seed
        export_gallery(self.files, self.sky, data, rules, label, seed)
        return self.files.gallery.rename(self.files.results / name)


@pytest.fixture(scope="module")
def run(tmp_path_factory, sky, settings) -> Run:
    return Run(tmp_path_factory.mktemp("gallery"), sky, settings)


@pytest.fixture(scope="module")
def exported(run) -> Path:
    """The gallery of the run, with the other settings' default values."""
    folder = run.export("complete")
    assert not list(run.files.gallery.parent.iterdir()), "temporary files are removed"
    return folder


def sorted_rows(rows: list[dict[str, str]], page: str) -> list[dict[str, str]]:
    """The rows of a table of frames, in the order of the sheets on the page."""
    order = {
        name: k for k, name in enumerate(re.findall(r'<img src="(\w+)\.png"', page))
    }
    return sorted(rows, key=lambda row: order[row["sheet"]])


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of `sheets.csv`."""
    with open(folder / "sheets.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_folder_contains_sheets_page_and_table(run, exported):
    """A PNG for each sheet, shown on the page, and a table row for each frame."""
    names = {path.stem for path in exported.glob("*.png")}
    assert names == {
        *(f"cluster_{k:02d}" for k in range(3)),
        *(f"neighbours_{k}" for k in (1, 2, 3)),
        *("outliers", "duplicates", "views", "map_clusters", "map_label"),
    }
    page = (exported / "index.html").read_text()
    assert all(f'<img src="{name}.png"' in page for name in names)
    rows = read_table(exported)
    assert list(rows[0]) == list(GALLERY_COLUMNS)
    assert {row["sheet"] for row in rows} == names - {"map_clusters", "map_label"}
    assert {row["image_id"] for row in rows} <= set(run.ids)
    assert rows[0]["object"].startswith("SKY ")
    # Each frame is a link to its image on the map, if a map is written.
    links = re.findall(r'href="\.\./map\.html#image=(\w+)" title="(SKY \d+):', page)
    assert links == [
        (row["image_id"], row["object"]) for row in sorted_rows(rows, page)
    ]
    assert 'style="left: 2.273%; top: 8.696%; width: 30.303%;' in page
    without = (run.export("without", map=False) / "index.html").read_text()
    assert "map.html#image" not in without


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(run, exported):
    """The date, the program and the machine's fonts and settings have no effect."""
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "text.usetex": True, "lines.linewidth": 9}):
        other = run.export("other")
    for path in sorted(exported.iterdir()):
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    assert b"tEXt" not in (exported / "outliers.png").read_bytes()


@pytest.mark.slow
def test_frames_show_the_images_in_the_table(run, exported):
    """The first frame is the enlarged tensor of the image in the first row."""
    row = next(r for r in read_table(exported) if r["sheet"] == "outliers")
    images = find_images(run.files.all_tensors, {row["image_id"]})
    picture = fit_into_frame(images.pixels(row["image_id"]), None, None, SIDE)
    expected = picture.pixels[::-1]
    pixels = read_pixels(exported / "outliers.png", "L")
    left, top = Layout(3, 1, 6).position(0)
    frame = pixels[top : top + 100, left : left + SIDE]  # above the scale bar
    np.testing.assert_allclose(frame, 255 * expected[:100], atol=0.51)


@pytest.mark.slow
@pytest.mark.parametrize("stretch", ["linear", "zscale"])
def test_pictures_from_files_have_full_resolution(run, stretch):
    """FITS files are read again and stretched."""
    folder = run.export(f"files {stretch}", gallery_stretch=stretch)
    row = next(r for r in read_table(folder) if r["sheet"] == "outliers")
    _, image = read_image([row["path"]], DataSettings())
    expected = fit_into_frame(
        apply_stretch(image, stretch), image.mask, None, SIDE
    ).pixels
    pixels = read_pixels(folder / "outliers.png", "L")
    left, top = Layout(3, 1, 6).position(0)
    y, x = ((SIDE - n) // 2 for n in expected.shape)
    frame = pixels[top + y : top + y + 90, left + x : left + x + expected.shape[1]]
    known = np.isfinite(expected[::-1][:90])
    difference = np.abs(frame - 255 * expected[::-1][:90])[known]
    assert difference.max() < 0.51


@pytest.mark.slow
def test_a_missing_file_leaves_an_empty_frame_with_the_reason(run, exported, tmp_path):
    """The other pictures are drawn."""
    assert picture_from_fits([tmp_path / "no.fits"], DataSettings(), "log", SIDE) == (
        Picture(None, problem="there is no such file")
    )
    row = next(r for r in read_table(exported) if r["sheet"] == "outliers")
    hidden = Path(row["path"]).rename(Path(row["path"]).with_suffix(".away"))
    try:
        folder = run.export("missing", gallery_stretch="asinh")
    finally:
        hidden.rename(row["path"])
    pixels = read_pixels(folder / "outliers.png", "RGB")
    left, top = Layout(3, 1, 6).position(0)
    empty = to_rgb(DARK)
    assert (pixels[top + 100 : top + SIDE, left : left + SIDE] == empty).all()
    left, top = Layout(3, 1, 6).position(1)
    assert (pixels[top : top + SIDE, left : left + SIDE] != empty).any()


@pytest.mark.slow
def test_images_of_native_size_are_drawn(tmp_path, sky):
    """With `size: native`, images keep their aspect ratio."""
    rules = {"preprocess_settings": {"size": "native", "shard_size": 16}}
    native = Run(tmp_path, sky, parse(rules, "test"))
    folder = native.export("gallery")
    assert len(list(folder.glob("*.png"))) == 11
    images = find_images(native.files.all_tensors, set(native.ids))
    shapes = {images.pixels(image_id).shape for image_id in native.ids}
    assert len(shapes) > 3


@pytest.mark.slow
def test_unusual_names_are_safe_on_page_and_in_table(run):
    """Every frame is drawn, and the page contains no markup from names."""
    catalogue = run.files.catalogue
    original = catalogue.read_bytes()
    rows = list(artefacts.read_csv(catalogue))
    for row, name in zip(rows, UNUSUAL_NAMES * 3, strict=False):
        row["object"] = name.encode("utf-8", "replace").decode()
    try:
        columns = [*CATALOGUE_COLUMNS, *artefacts.list_columns(catalogue)]
        artefacts.write_csv(catalogue, columns, rows)
        folder = run.export("unusual names")
    finally:
        catalogue.write_bytes(original)
    assert (folder / "index.html").read_text().count("<script") == 1  # that of the page
    names = {row["object"] for row in artefacts.read_csv(folder / "sheets.csv")}
    assert "<script>alert(1)</script>" in names


def test_an_analysis_of_other_images_is_an_error(run):
    """The message names the file, the image and the remedy."""
    analysis = points_on_a_line(["f" * 16], [0])
    write_analysis(run.files.analysis, analysis)
    try:
        with pytest.raises(AstromorphError, match=r"catalogue\.csv: the image f+ of"):
            run.export("other")
    finally:
        run.analyse([k % 3 for k in range(len(run.ids))])
    with pytest.raises(AstromorphError, match=r"00000\.pt: the image f+ .* none of"):
        find_images(run.files.all_tensors, {"f" * 16})


def test_views_are_augmented_as_in_training():
    """Without augmentation, they equal the image; one seed gives the same views."""
    identity = {
        "rotation": False, "flip": False, "scale": (1.0, 1.0), "shift": 0.0,
        "gamma": 0.0, "contrast": 0.0, "brightness": 0.0, "blur": 0.0, "noise": 0.0,
        "channel_gain": 0.0,
    }  # fmt: skip
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    weakest = AugmentationSettings.model_validate(identity)
    for view in augmented_views(image, weakest, 1, seed=5, number=2):
        np.testing.assert_allclose(view, image[0], atol=1e-5)
    default = AugmentationSettings()
    first, second = augmented_views(image, default, 3, seed=5, number=2)
    again = augmented_views(image, default, 3, seed=5, number=2)
    assert np.abs(first - second).mean() > 0.01
    np.testing.assert_array_equal(np.stack([first, second]), np.stack(again))


def test_a_sheet_has_no_metadata(tmp_path):
    """Its bytes only depend on its content."""
    sheet = Sheet("s", "clusters", "s", 3, (Frame("a"),))
    for name in ("a", "b"):
        picture = Picture(np.eye(9, dtype=np.float32))
        draw_sheet(tmp_path / name, sheet, [picture], ["x"])
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    with Pillow.open(io.BytesIO(data)) as picture:
        assert set(picture.info) <= {"dpi"}
