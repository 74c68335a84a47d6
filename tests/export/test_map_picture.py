"""Pictures of the map: positions and colours of points, examples, legend."""

from dataclasses import replace

import numpy as np
import pytest
from export.test_gallery import make_ids, points_on_a_line
from PIL import Image, ImageColor

from astromorph.artefacts.analysis_table import (
    Analysis,
    read_analysis_parts,
    write_analysis,
)
from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import write_csv
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import TITLE
from astromorph.export.gallery.drawing import new_canvas
from astromorph.export.gallery.map_picture import (
    BORDER,
    CELL,
    CELLS,
    FIELD,
    MARKER_SHAPES,
    MAX_CLASSES,
    PICTURE,
    choose_maps,
    draw_map,
    map_png,
    place_pictures,
)
from astromorph.export.gallery.pictures import Picture
from astromorph.export.palette import COLOURS, MARKERS


def write_tables(folder, positions, clusters, labels=None, column="label"):
    """The files of a run with images at given positions."""
    files = RunFiles(folder)
    ids = make_ids(len(positions))
    analysis = replace(
        points_on_a_line(ids, list(clusters)), map=np.array(positions, np.float32)
    )
    write_analysis(files.analysis, analysis)
    texts = labels or [""] * len(ids)
    rows = [{"image_id": i, column: text} for i, text in zip(ids, texts, strict=True)]
    write_csv(files.catalogue, (*CATALOGUE_COLUMNS, column), rows)
    return files


def draw(path, contents, brightness=0.5):
    """The pixels of a map with pictures of one brightness."""
    picture = Picture(np.full((PICTURE, PICTURE), brightness, np.float32))
    draw_map(path, contents, [picture] * len(contents.examples))
    return read_pixels(path)


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(pixels, colour):
    """Whether each pixel of the map, without the legend, has exactly a colour."""
    field = pixels[TITLE : TITLE + FIELD, :FIELD]
    return (field == ImageColor.getrgb(colour)).all(axis=2)


def test_points_have_the_position_and_the_colour_of_their_cluster(tmp_path):
    """To the right x increases, upwards y; both axes have the same scale."""
    positions = [(0, 0), (0, 1), (4, 0), (4, 1)]
    files = write_tables(tmp_path, positions, [0, 0, 1, 1])
    (contents,) = choose_maps(files, "label")
    pixels = draw(tmp_path / "m.png", replace(contents, examples=()))
    rows, columns = np.nonzero(has_colour(pixels, COLOURS[0]))
    assert columns.max() < FIELD / 3
    distance = np.ptp(rows)
    rows, columns = np.nonzero(has_colour(pixels, COLOURS[1]))
    assert columns.min() > 2 * FIELD / 3
    assert distance == pytest.approx((FIELD - 60) / 4, abs=12)
    assert [(c.name, c.size) for c in contents.classes] == [("0", 2), ("1", 2)]


def test_labels_colour_a_second_map(tmp_path):
    """The most frequent label comes first; images without a label are gray."""
    labels = ["b", "b", "a", "", "b", "a"]
    positions = [(k, k % 2) for k in range(6)]
    files = write_tables(tmp_path, positions, [0] * 6, labels, "kind")
    by_cluster, by_label = choose_maps(files, "kind")
    assert (by_cluster.sheet.name, by_label.sheet.name) == ("map_clusters", "map_label")
    sizes = [(c.name, c.size) for c in by_label.classes]
    assert sizes == [("b", 3), ("a", 2), ("no kind", 1)]
    assert by_label.class_of_point.tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("label", ["label", None, "cluster"])
def test_without_labels_there_is_one_map(tmp_path, label):
    """No such column, no column at all, or a column without a value."""
    positions = [(0, 0), (1, 1)]
    files = write_tables(tmp_path, positions, [0, 0], ["b", "a"], "kind")
    assert len(choose_maps(files, label)) == 1
    files = write_tables(tmp_path, positions, [0, 0], ["", ""], label or "label")
    assert len(choose_maps(files, label)) == 1


def test_classes_without_a_colour_of_their_own_are_gray(tmp_path):
    """The sizes in the legend add up to the number of images."""
    labels = [f"kind {k % 40}" for k in range(200)]
    positions = [(k, k**2 % 7) for k in range(200)]
    files = write_tables(tmp_path, positions, [-1] * 200, labels)
    by_cluster, by_label = choose_maps(files, "label")
    assert [c.name for c in by_cluster.classes] == ["no cluster"]
    assert len(by_label.classes) == MAX_CLASSES + 1
    assert by_label.classes[-1].name == "12 others"
    assert sum(c.size for c in by_label.classes) == 200
    styles = {(c.colour, c.marker) for c in by_label.classes}
    assert len(styles) == len(by_label.classes)
    assert draw(tmp_path / "m.png", by_label).shape[1] > FIELD


def test_pictures_neither_overlap_nor_cover_the_points():
    """There is room for as many pictures as sheets of clusters, all at one spot."""
    occupied = np.zeros((CELLS, CELLS), np.bool_)
    occupied[300 // CELL : 500 // CELL, 300 // CELL : 500 // CELL] = True
    spots = [(400.0 + k, 440.0 - k) for k in range(24)]
    corners = place_pictures(occupied, spots)
    assert all(corners)
    side = PICTURE + 2 * BORDER
    for k, (left, top) in enumerate(corners):
        assert BORDER <= left <= FIELD - side
        assert TITLE + BORDER <= top <= TITLE + FIELD - side
        for other_left, other_top in corners[:k]:
            assert max(abs(left - other_left), abs(top - other_top)) >= side
    left, top = corners[0]
    rows = slice((top - TITLE) // CELL, (top - TITLE + PICTURE) // CELL)
    columns = slice(left // CELL, (left + PICTURE) // CELL)
    assert occupied[rows, columns].mean() < 0.1


def test_there_may_be_no_room_for_a_picture():
    """Pictures that do not fit on the map are omitted."""
    spots = [(400.0, 440.0)] * 200
    corners = place_pictures(np.zeros((CELLS, CELLS), np.bool_), spots)
    assert 24 < len([corner for corner in corners if corner]) < 200


def test_an_example_has_a_border_in_the_colour_of_its_class(tmp_path):
    """Both the picture and its border are drawn."""
    positions = [(k, (3 * k) % 5) for k in range(12)]
    files = write_tables(tmp_path, positions, [0] * 6 + [1] * 6)
    (contents,) = choose_maps(files, "label")
    assert len(contents.examples) == len(contents.sheet.frames) == 2
    pixels = draw(tmp_path / "m.png", contents)
    assert (pixels == 128).all(axis=2).sum() > 2 * 0.8 * PICTURE**2
    for colour in COLOURS[:2]:
        assert has_colour(pixels, colour).sum() > 4 * BORDER * PICTURE


def test_overlapping_classes_are_seen_in_proportion(tmp_path):
    """The class that is drawn last does not cover the others."""
    rng = np.random.default_rng(0)
    number = 20_000
    positions = rng.normal(size=(number, 2))
    clusters = np.repeat([0, 1], number // 2)
    files = write_tables(tmp_path, positions[:2], [0, 1])
    first = next(read_analysis_parts(files.analysis))
    write_analysis(files.analysis, repeat(first, number, positions, clusters))
    (contents,) = choose_maps(files, None)
    pixels = draw(tmp_path / "m.png", replace(contents, examples=()))
    areas = [has_colour(pixels, colour).sum() for colour in COLOURS[:2]]
    assert areas[0] == pytest.approx(areas[1], rel=0.25)


def repeat(analysis, number, positions, clusters):
    """An analysis of many images, with the values of one row except two columns."""
    values = {}
    for name in Analysis.__slots__:
        if getattr(analysis, name) is None:
            continue
        value = getattr(analysis, name)[:1]
        is_array = isinstance(value, np.ndarray)
        values[name] = np.repeat(value, number, axis=0) if is_array else value * number
    values["map"] = positions.astype(np.float32)
    values["cluster"] = clusters.astype(np.int32)
    return Analysis(**values)


def test_many_points_give_the_same_bytes_each_time(tmp_path):
    """40,000 points, for which the analysis has several parts."""
    rng = np.random.default_rng(0)
    number = 40_000
    files = write_tables(tmp_path, [(0, 0)], [0])
    first = next(read_analysis_parts(files.analysis))
    positions = rng.normal(size=(number, 2))
    write_analysis(
        files.analysis, repeat(first, number, positions, rng.integers(-1, 9, number))
    )
    (contents,) = choose_maps(files, "none")
    pixels = draw(tmp_path / "a.png", contents)
    draw(tmp_path / "b.png", contents)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (pixels[TITLE:, :FIELD] < 250).any(axis=2).mean() > 0.1


def test_a_single_point_is_drawn(tmp_path):
    """The map then has no extent."""
    (contents,) = choose_maps(write_tables(tmp_path, [(7, 7)], [0]), "label")
    assert has_colour(draw(tmp_path / "m.png", contents), COLOURS[0]).any()


def test_a_dark_map_has_a_dark_background_and_no_black_points(tmp_path):
    """For dark pages: the black class is white there, all others keep their colours."""
    number = len(COLOURS)
    places = [(5 * k, k) for k in range(number)]
    (contents,) = choose_maps(write_tables(tmp_path, places, range(number)), "label")
    (tmp_path / "m.png").write_bytes(map_png(contents, [None] * number, dark=True))
    pixels = read_pixels(tmp_path / "m.png")
    assert tuple(pixels[-1, 0]) == (20, 24, 29)
    assert pixels.max(axis=2).min() > 20
    shown = (*COLOURS[:-1], "#ffffff")
    assert all(has_colour(pixels, colour).any() for colour in shown)


def test_markers_have_about_the_same_area(tmp_path):
    """Classes of equal size look equally large."""
    areas = []
    for marker in MARKERS:
        shape, factor = MARKER_SHAPES[marker]
        with new_canvas(100, 100) as canvas:
            canvas.points([50], [50], shape, 30 * factor, "#000000")
            canvas.save(tmp_path / "m.png")
        areas.append((read_pixels(tmp_path / "m.png") < 128).all(axis=2).sum())
    assert max(areas) < 1.2 * min(areas)
    assert areas[0] == pytest.approx(np.pi * 15**2, rel=0.05)


def test_a_rim_is_outside_of_a_point(tmp_path):
    """Points keep their size, so that those with and without a rim look alike."""
    areas = []
    for rim in (0, 2):
        with new_canvas(100, 100) as canvas:
            canvas.rectangle(0, 0, 100, 100, "#ff0000")
            canvas.points([50], [50], "D", 30, "#000000", rim=rim, layer=1)
            canvas.save(tmp_path / "m.png")
        pixels = read_pixels(tmp_path / "m.png")
        areas.append((pixels < 100).all(axis=2).sum())
    assert areas[1] == pytest.approx(areas[0], rel=0.1)
    assert (pixels > 200).all(axis=2).sum() > 100, "the rim is white"


def test_a_catalogue_of_other_images_is_an_error(tmp_path):
    """The message names the file and the image."""
    files = write_tables(tmp_path, [(0, 0), (1, 1)], [0, 0], ["a", "b"])
    rows = [{"image_id": "f" * 16, "label": "a"}]
    write_csv(files.catalogue, (*CATALOGUE_COLUMNS, "label"), rows)
    with pytest.raises(AstromorphError, match=r"catalogue\.csv: the image 0+ of"):
        choose_maps(files, "label")
