"""The map as a picture: points in their places and colours, however many."""

from dataclasses import replace

import numpy as np
import pytest
from export.test_gallery import names, points_on_a_line
from PIL import Image

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import (
    Analysis,
    read_analysis_parts,
    write_analysis,
)
from astromorph.artefacts.tables import CATALOGUE_COLUMNS
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import TITLE
from astromorph.export.gallery.fits_pictures import Picture
from astromorph.export.gallery.map_contents import MAX_CLASSES, choose_maps
from astromorph.export.gallery.map_picture import (
    FIELD,
    FRAME,
    PICTURE,
    class_colour,
    draw_map,
    marker_stamp,
    place_pictures,
)
from astromorph.pages.palette import MARKERS


def tables(folder, places, clusters, labels=None, column="label"):
    """An analysis and a catalogue of images at given places."""
    ids = names(len(places))
    analysis = replace(
        points_on_a_line(ids, list(clusters)), map=np.array(places, np.float32)
    )
    write_analysis(folder / "analysis.parquet", analysis)
    words = labels or [""] * len(ids)
    rows = [{"image_id": i, column: w} for i, w in zip(ids, words, strict=True)]
    artefacts.write_csv(folder / "catalogue.csv", (*CATALOGUE_COLUMNS, column), rows)
    return folder / "analysis.parquet", folder / "catalogue.csv"


def drawn(path, sheet, brightness=0.5):
    picture = Picture(np.full((160, 160), brightness, np.float32))
    draw_map(path, sheet, [picture] * len(sheet.examples))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def reddish(pixels, code):
    return (pixels[TITLE : TITLE + FIELD, :FIELD] == class_colour(code)).all(axis=2)


def test_points_lie_where_the_table_says_in_the_colour_of_their_cluster(tmp_path):
    """Left is a small x, up a large y; both axes have one scale."""
    places = [(0, 0), (0, 1), (4, 0), (4, 1)]
    both = tables(tmp_path, places, [0, 0, 1, 1])
    (sheet,) = choose_maps(*both, "label")
    bare = replace(sheet, examples=())
    pixels = drawn(tmp_path / "m.png", bare)
    rows, columns = np.nonzero(reddish(pixels, 0))
    assert columns.max() < FIELD / 3
    spread = np.ptp(rows)
    rows, columns = np.nonzero(reddish(pixels, 1))
    assert columns.min() > 2 * FIELD / 3
    assert spread == pytest.approx((FIELD - 60) / 4, abs=12)
    assert [(c.name, c.size) for c in sheet.classes] == [("0", 2), ("1", 2)]


def test_labels_colour_a_second_map(tmp_path):
    """The most frequent first; what has none is gray; no column, no second map."""
    labels = ["b", "b", "a", "", "b", "a"]
    both = tables(tmp_path, [(k, k % 2) for k in range(6)], [0] * 6, labels, "kind")
    by_cluster, by_label = choose_maps(*both, "kind")
    assert (by_cluster.sheet.name, by_label.sheet.name) == ("map_clusters", "map_label")
    assert [(c.name, c.size) for c in by_label.classes] == [
        ("b", 3), ("a", 2), ("no kind", 1),
    ]  # fmt: skip
    assert len(choose_maps(*both, "label")) == 1
    empty = tables(tmp_path, [(0, 0), (1, 1)], [0, 0], ["", ""])
    assert len(choose_maps(*empty, "label")) == 1


def test_more_classes_than_colours_are_gray_together(tmp_path):
    """The sizes in the legend add up to all images."""
    labels = [f"kind {k % 40}" for k in range(200)]
    both = tables(tmp_path, [(k, k**2 % 7) for k in range(200)], [-1] * 200, labels)
    by_cluster, by_label = choose_maps(*both, "label")
    assert [c.name for c in by_cluster.classes] == ["no cluster"]
    assert len(by_label.classes) == MAX_CLASSES + 1
    assert by_label.classes[-1].name == "12 others"
    assert sum(c.size for c in by_label.classes) == 200
    assert drawn(tmp_path / "m.png", by_label).shape[1] > FIELD


def test_pictures_do_not_lie_on_each_other_and_keep_off_the_points():
    """Room is found for as many clusters as have sheets, all in one crowd."""
    covered = np.zeros((FIELD, FIELD))
    covered[300:500, 300:500] = 1
    spots = [(400.0 + k, 440.0 - k) for k in range(24)]
    found = place_pictures(covered, spots)
    assert all(found)
    side = PICTURE + 2 * FRAME
    for k, (left, top) in enumerate(found):
        assert FRAME <= left <= FIELD - side
        assert TITLE + FRAME <= top <= TITLE + FIELD - side
        for other_left, other_top in found[:k]:
            assert max(abs(left - other_left), abs(top - other_top)) >= side
    left, top = found[0]
    under = covered[top - TITLE : top - TITLE + PICTURE, left : left + PICTURE]
    assert under.mean() < 0.1


def test_an_example_is_framed_in_the_colour_of_its_class(tmp_path):
    """Its picture is there, with a frame around it."""
    both = tables(tmp_path, [(k, (3 * k) % 5) for k in range(12)], [0] * 6 + [1] * 6)
    (sheet,) = choose_maps(*both, "label")
    assert len(sheet.examples) == len(sheet.sheet.frames) == 2
    pixels = drawn(tmp_path / "m.png", sheet)
    assert (pixels == 128).all(axis=2).sum() > 2 * 0.8 * PICTURE**2
    for code in (0, 1):
        assert reddish(pixels, code).sum() > 4 * FRAME * PICTURE


def test_the_same_points_give_the_same_bytes_many_or_one(tmp_path):
    """Of 40,000 points, in several parts; of one, without a scale."""
    rng = np.random.default_rng(0)
    both = tables(tmp_path, [(0, 0)], [0])
    one = next(read_analysis_parts(both[0]))
    number = 40_000
    values = {
        name: np.repeat(held, number, axis=0)
        if isinstance(held := getattr(one, name), np.ndarray)
        else held * number
        for name in Analysis.__slots__
    } | {
        "map": rng.normal(size=(number, 2)).astype(np.float32),
        "cluster": rng.integers(-1, 9, number, dtype=np.int32),
    }
    write_analysis(both[0], Analysis(**values))
    (sheet,) = choose_maps(*both, "none")
    first = drawn(tmp_path / "a.png", sheet)
    drawn(tmp_path / "b.png", sheet)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (first[TITLE:, :FIELD] < 250).any(axis=2).mean() > 0.1
    (one,) = choose_maps(*tables(tmp_path, [(7, 7)], [0]), "label")
    assert reddish(drawn(tmp_path / "c.png", one), 0).any()


def test_markers_have_about_one_area_and_their_rims_lie_outside():
    """None looks larger than the others."""
    areas = [len(marker_stamp(marker, 9, 0)[0]) for marker in MARKERS]
    assert max(areas) < 1.25 * min(areas)
    shape, rim = marker_stamp("diamond", 9, 2)
    assert not {tuple(s) for s in shape.tolist()} & {tuple(r) for r in rim.tolist()}


def test_a_catalogue_of_other_images_is_refused(tmp_path):
    """With the name of the file and of the image."""
    analysis, _ = tables(tmp_path, [(0, 0), (1, 1)], [0, 0], ["a", "b"])
    catalogue = tmp_path / "other.csv"
    rows = [{"image_id": "f" * 16, "label": "a"}]
    artefacts.write_csv(catalogue, (*CATALOGUE_COLUMNS, "label"), rows)
    with pytest.raises(AstromorphError, match=r"other\.csv: the image 0+ of"):
        choose_maps(analysis, catalogue, "label")
