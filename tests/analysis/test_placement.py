"""New images on the map of an earlier run."""

import csv
import json
import shutil

import numpy as np
import pytest
from finished_run import catalogue_rows, write_run

from astromorph.analysis.analyse import analyse, analyse_embeddings
from astromorph.analysis.embedded_images import EmbeddedImages
from astromorph.analysis.placement import Reference, majority, place_among
from astromorph.analysis.similar import Examples, similar
from astromorph.artefacts.analysis_table import read_analysis
from astromorph.artefacts.embeddings import read_embeddings, write_embeddings
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import (
    all_tensors,
    embedding_blocks,
    find_in_catalogue,
    listed_columns,
    number_of_listed,
    run_table,
)
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.cli.execute import own_inputs
from astromorph.cli.steps import STEPS, Job
from astromorph.cli.workflow import plan_workflow
from astromorph.errors import AstromorphError
from astromorph.export.html_map.html_map import export_map
from astromorph.export.tables.csv import export_csv
from astromorph.export.tables.parquet import export_parquet
from astromorph.export.tensorboard import make_sprite
from astromorph.filelist.list_state import ListState
from astromorph.pages.thumbnails import read_images
from astromorph.settings.loading import check_reference_results, parse
from astromorph.settings.sections import AnalysisSettings

MADE_WITH = {
    "model": "a" * 64,
    "symmetry": "d4",
    "tensor_settings": json.dumps(
        {"preprocess_settings": {"size": 64, "stretch_scope": "image"}}
    ),
}
OLD, NEW, LENGTH = 60, 8, 12


def ids_of(prefix, number):
    return tuple(f"{prefix}{k:015x}" for k in range(number))


def groups(number, seed):
    """Vectors of three groups in turn, far from the origin."""
    draw = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(0).normal(size=(3, LENGTH))
    vectors = centres[np.arange(number) % 3] + draw.normal(size=(number, LENGTH)) + 20
    return vectors.astype(np.float32)


def write_listed_run(results, prefix, vectors, made_with=MADE_WITH, **columns):
    """A run up to its embeddings, in two shards."""
    number = len(vectors)
    ids = columns.pop("image_id", ids_of(prefix, number))
    subsets = columns.pop("subsets", ())
    paths = [f"/{prefix}/{k}.fits" for k in range(number)]
    rows = catalogue_rows(number, image_id=ids, path=paths, **columns)
    sizes = (number // 2, number - number // 2)
    pixels = np.random.default_rng(5).random((number, 1, 16, 16)).astype(np.float32)
    files = write_run(
        results,
        rows,
        shard_sizes=sizes,
        vectors=vectors,
        pixels=pixels,
        subsets=subsets,
    )
    for path in files.all_embeddings:
        write_embeddings(path, read_embeddings(path), made_with)
    return files


def finish_old_run(folder):
    kinds = [f"kind {k % 3}" for k in range(OLD)]
    files = write_listed_run(folder / "old", "a", groups(OLD, 1), kind=kinds)
    rules = AnalysisSettings(map="pca", clusters=3, neighbours=6)
    analyse(files, rules, 0, 1)
    return files


def rules_with(files, **changes):
    return AnalysisSettings(reference_results=str(files.results), **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An earlier run, and one of new images placed on its map."""
    folder = tmp_path_factory.mktemp("placement")
    old = finish_old_run(folder)
    vectors = groups(NEW, 3)
    vectors[0] = read_embeddings(old.embeddings("00001")).vectors[4]
    vectors[-1] += 30 * np.random.default_rng(9).normal(size=LENGTH)
    new = write_listed_run(folder / "new", "b", vectors, night=list("12345678"))
    analyse(new, rules_with(old), 0, 1)
    return old, new


def test_old_images_do_not_change(runs):
    """Bit by bit: position, clusters, neighbours, components, score."""
    old, new = (read_analysis(files.analysis) for files in runs)
    assert new.image_ids == ids_of("b", NEW) + old.image_ids
    assert new.new.tolist() == [True] * NEW + [False] * OLD
    for name in ("map", "pca", "cluster", "kmeans", "hdbscan", "distances"):
        assert getattr(new, name)[NEW:].tobytes() == getattr(old, name).tobytes()
    assert new.outlier_score[NEW:].tobytes() == old.outlier_score.tobytes()
    for name in ("neighbours", "duplicates", "roles"):
        assert getattr(new, name)[NEW:] == getattr(old, name)
    assert sorted(new.outlier_rank) == list(range(1, NEW + OLD + 1))


def test_new_images_get_place_cluster_and_neighbours_of_old_ones(runs):
    """The documented weights; an image that is the same as an old one has its place."""
    old, new = (read_analysis(files.analysis) for files in runs)
    row = {image_id: k for k, image_id in enumerate(old.image_ids)}
    for k in range(1, NEW):
        near = [row[image_id] for image_id in new.neighbours[k][:5]]
        weights = 1 / new.distances[k, :5]
        expected = (weights[:, None] * old.map[near]).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(new.map[k], expected, rtol=1e-5)
    same = OLD // 2 + 4
    assert new.map[0].tobytes() == old.map[same].tobytes()
    assert new.neighbours[0][0] == old.image_ids[same]
    assert new.duplicates[0] == (old.image_ids[same],)
    assert new.distances[0, 0] < 1e-6
    assert np.all(np.diff(new.distances, axis=1) >= 0)
    for k in range(1, NEW - 1):  # vectors are of three groups in turn
        assert new.cluster[k] == old.cluster[k % 3]


def test_a_far_image_is_novel_and_in_no_cluster(runs):
    """Its novelty is 100 %, its outlier rank 1; similar ones have smaller values."""
    old, new = (read_analysis(files.analysis) for files in runs)
    assert new.novelty[NEW - 1] == 100
    assert new.cluster[NEW - 1] == new.kmeans[NEW - 1] == -1
    assert new.outlier_rank[NEW - 1] == 1
    fifth = np.sort(old.distances[:, 4])
    for k in (1, 2, NEW + 7):
        share = np.count_nonzero(fifth < new.distances[k, 4]) / OLD
        assert new.novelty[k] == pytest.approx(100 * share)
    assert new.novelty[1 : NEW - 1].max() < 100
    page = runs[1].analysis_page.read_text(encoding="utf-8")
    assert "8 new images" in page
    assert page.index("7.fits") < page.index("3.fits")


def test_scores_of_new_images_are_on_the_scale_of_old_ones():
    """An image of the earlier run, removed and placed again, has nearly its score."""
    vectors = groups(OLD, 1)
    ids = ids_of("a", OLD)
    images = EmbeddedImages(ids, ids, vectors)
    rules = AnalysisSettings(map="pca", clusters=3, neighbours=6)
    analysis, summary = analyse_embeddings(images, rules, 0, 1)
    files = RunFiles.of_run("nowhere")
    summary["settings"] = {"analysis_settings": rules.model_dump(mode="json")}
    moved = vectors[:5] + 1e-3
    new = EmbeddedImages(ids_of("b", 5), ids_of("b", 5), moved)
    reference = Reference(files, images, analysis, summary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "astromorph.analysis.placement.read_analysis_settings", lambda path: rules
        )
        placed, _ = place_among(new, reference)
    # The image itself, at distance 0, replaces the last of its six neighbours.
    assert np.all(placed.outlier_score[:5] < analysis.outlier_score[:5])
    assert np.all(placed.outlier_score[:5] > 0.6 * analysis.outlier_score[:5])


def test_the_cluster_is_that_of_the_largest_sum_of_weights():
    labels = np.array([[1, 2, 2], [1, 2, 2], [3, 4, 5], [-1, 0, -1]], np.int32)
    weights = np.array([[6, 2, 2], [3, 2, 2], [1, 1, 1], [2, 3, 2]], np.float32)
    assert majority(labels, weights).tolist() == [1, 2, 3, -1]


def test_tables_contain_new_and_old_images(runs, tmp_path):
    """Columns of both lists, `new` and `novelty`, and the embeddings of each run."""
    old, new = runs
    table = run_table(new)
    assert list(table["image_id"]) == [*ids_of("b", NEW), *ids_of("a", OLD)]
    assert list(listed_columns(new)) == ["night", "kind"]
    assert list(table["night"][:2]) == ["1", "2"]
    assert set(table["night"][NEW:]) == {""}
    assert list(table["kind"][NEW - 1 : NEW + 2]) == ["", "kind 0", "kind 1"]
    assert table["new"].tolist() == [1] * NEW + [0] * OLD
    assert number_of_listed(new) == NEW + OLD
    vectors = np.concatenate([vectors for _, vectors in embedding_blocks(new, table)])
    np.testing.assert_array_equal(vectors[NEW:], groups(OLD, 1))
    export_csv(new, "comma")
    with open(new.table("csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["new"] for row in rows] == ["1"] * NEW + ["0"] * OLD
    assert float(rows[NEW - 1]["novelty"]) == 100
    assert float(rows[NEW]["emb_0"]) == vectors[NEW, 0]
    export_parquet(new, "{}")
    import pyarrow.parquet as pq

    stored = pq.read_table(new.table("parquet"))
    assert str(stored.schema.field("new").type) == "int32"
    assert stored.column("novelty").to_pylist()[NEW - 1] == 100
    assert "new" not in run_table(old)
    assert "new" not in embedding_header(old)


def embedding_header(files):
    export_csv(files, "comma")
    with open(files.table("csv"), newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def test_the_map_shows_new_and_old_images(runs):
    """Both have pictures; `new` and `novelty` colour the points."""
    old, new = runs
    assert len(all_tensors(new)) == len(old.shards) + len(new.shards)
    export_map(new, 16, 1000, False)
    page = new.map.read_text(encoding="utf-8")
    assert f'"number": {NEW + OLD}' in page or f'"number":{NEW + OLD}' in page
    assert '"novelty"' in page


def test_an_image_of_both_lists_is_old(runs, tmp_path):
    """It keeps its row, and is listed once."""
    old, _ = runs
    vectors = np.concatenate([groups(OLD, 1)[[3, 7]], groups(2, 4)])
    ids = [ids_of("a", OLD)[3], ids_of("a", OLD)[7], *ids_of("b", 2)]
    files = write_listed_run(tmp_path / "both", "b", vectors, image_id=ids)
    analyse(files, rules_with(old), 0, 1)
    analysis, earlier = read_analysis(files.analysis), read_analysis(old.analysis)
    assert analysis.image_ids[:4] == tuple(ids)
    assert len(analysis) == OLD + 2
    assert analysis.new.tolist() == [False, False, True, True] + [False] * (OLD - 2)
    assert analysis.map[1].tobytes() == earlier.map[7].tobytes()
    assert analysis.neighbours[1] == earlier.neighbours[7]
    table = run_table(files)
    assert list(table["image_id"]) == list(analysis.image_ids)
    blocks = [vectors for _, vectors in embedding_blocks(files, table)]
    assert len(np.concatenate(blocks)) == OLD + 2


def test_another_image_with_the_same_id_is_another_row(runs, tmp_path):
    """The old one gets a suffix in all tables, and keeps its picture and embedding."""
    old, _ = runs
    old_ids = ids_of("a", OLD)
    ids = [old_ids[3], *ids_of("b", 2), old_ids[7], old_ids[9]]
    vectors = groups(5, 4)
    vectors[3] = groups(OLD, 1)[7]  # the same image
    files = write_listed_run(
        tmp_path / "new", "b", vectors, image_id=ids, subsets=["train"] * 4 + ["none"]
    )
    analyse(files, rules_with(old), 0, 1)
    expected = [*ids[:4], *old_ids]
    expected[4 + 3], expected[4 + 9] = f"{old_ids[3]}-old", f"{old_ids[9]}-old"
    expected.remove(old_ids[7])  # the first one: the row of this run
    expected.remove(old_ids[7])
    expected.insert(3, old_ids[7])
    analysis, earlier = read_analysis(files.analysis), read_analysis(old.analysis)
    assert list(analysis.image_ids) == expected
    assert analysis.new.tolist() == [True] * 3 + [False] * (OLD)
    row = expected.index(f"{old_ids[3]}-old")
    assert analysis.map[row].tobytes() == earlier.map[3].tobytes()
    near = [name for names in analysis.neighbours for name in names]
    assert set(near) <= set(expected)
    table = run_table(files)
    assert list(table["image_id"]) == expected
    assert table["path"].iloc[row] == "/a/3.fits"
    assert table["path"].iloc[0] == "/b/0.fits"
    blocks = [vectors for _, vectors in embedding_blocks(files, table)]
    np.testing.assert_array_equal(np.concatenate(blocks)[row], groups(OLD, 1)[3])
    found = find_in_catalogue(files, [expected[row], expected[0]], ["path"])
    assert list(found["path"]) == ["/a/3.fits", "/b/0.fits"]
    pixels = dict(read_images(all_tensors(files), expected))
    shard = read_shard(old.tensors("00000"))
    np.testing.assert_array_equal(pixels[expected[row]], shard.image_list()[3].numpy())
    assert set(pixels) == set(expected)
    sheet, _ = make_sprite(all_tensors(files), set(expected), 16)
    assert sheet.shape[0] // 16 == int(np.ceil(np.sqrt(len(expected))))
    export_map(files, 16, 1000, False)
    rows = similar(files, Examples([f"{old_ids[3]}-old"]), 3)
    assert rows[0]["path"] == "/a/3.fits"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "b" * 64}, "from another model file .* `trained_network_name`"),
        ({"symmetry": "none"}, r"`inference_settings.symmetry` is \"d4\" instead of"),
        (
            {"tensor_settings": '{"preprocess_settings": {"size": 32}}'},
            r"`preprocess_settings.size` is 64 instead of 32; `preprocess_settings.str",
        ),
    ],
)
def test_embeddings_that_cannot_be_compared(runs, tmp_path, changes, message):
    """The message says what differs."""
    made_with = MADE_WITH | changes
    files = write_listed_run(tmp_path / "new", "b", groups(NEW, 2), made_with)
    with pytest.raises(AstromorphError, match=message):
        analyse(files, rules_with(runs[0]), 0, 1)


def test_references_that_cannot_be_used(runs, tmp_path):
    """A folder without a run, the run itself, one with a reference, one old file."""
    old, new = runs
    files = write_listed_run(tmp_path / "b", "b", groups(NEW, 2))
    with pytest.raises(AstromorphError, match=r"reference_results: found \S+nothing,"):
        analyse(files, AnalysisSettings(reference_results="/nothing"), 0, 1)
    with pytest.raises(AstromorphError, match="folder of this run"):
        analyse(files, rules_with(files), 0, 1)
    with pytest.raises(AstromorphError, match=f"on the map of {old.results}"):
        analyse(files, rules_with(new), 0, 1)
    write_embeddings(
        files.embeddings("00000"), read_embeddings(files.embeddings("00000"))
    )
    with pytest.raises(AstromorphError, match=r"does not say which model.*run `infer`"):
        analyse(files, rules_with(old), 0, 1)
    shared = json.dumps({"preprocess_settings": {"stretch_scope": "dataset"}})
    made_with = MADE_WITH | {"tensor_settings": shared}
    one = write_listed_run(tmp_path / "one", "a", groups(OLD, 1), made_with)
    two = write_listed_run(tmp_path / "two", "b", groups(NEW, 1), made_with)
    analyse(one, AnalysisSettings(map="pca"), 0, 1)
    with pytest.raises(AstromorphError, match=r"stretch_scope: found `dataset`"):
        analyse(two, rules_with(one), 0, 1)
    values = {"analysis_settings": {"reference_results": "old/"}}
    with pytest.raises(AstromorphError, match=r"such as old/model/model\.pt"):
        check_reference_results(parse(values, "x"), "x")
    check_reference_results(parse(values | {"trained_network_name": "m.pt"}, "x"), "x")


def test_similar_searches_new_and_old_images(runs):
    """In the space of the earlier run: the neighbours are those of the analysis."""
    _, new = runs
    analysis = read_analysis(new.analysis)
    rows = similar(new, Examples([ids_of("b", NEW)[1]]), 20)
    assert rows[0]["image_id"] == ids_of("b", NEW)[1]
    old = [row for row in rows[1:] if row["image_id"].startswith("a")][:6]
    assert tuple(row["image_id"] for row in old) == analysis.neighbours[1]
    np.testing.assert_allclose(
        [float(row["distance"]) for row in old], analysis.distances[1], atol=1e-4
    )


def test_a_changed_reference_makes_the_analysis_run_again(runs, tmp_path):
    """The inputs of the step differ; without a reference they do not mention it."""
    old, new = runs
    shutil.copytree(old.results, tmp_path / "old")
    listed = tmp_path / "list.txt"
    listed.write_text("a.fits\n")

    def inputs(values):
        settings = parse({"analysis_settings": values}, "x")
        job = Job(settings, new)
        return own_inputs(STEPS["analyse"], job, ListState(str(listed), 100))

    values = {"reference_results": str(tmp_path / "old")}
    before = inputs(values)
    assert inputs(values) == before
    with open(tmp_path / "old" / "analysis.json", "a") as file:
        file.write(" ")
    assert inputs(values).differences(before) == ("files",)
    assert inputs({}).files == inputs({"neighbours": 3}).files


def test_the_workflow_counts_the_images_of_both_lists(runs, tmp_path, monkeypatch):
    """The map has a folder of pictures if both together are too many for one page."""
    old, _ = runs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a.fits\n")

    def plan(limit, model="m.pt"):
        config = {
            "datafile": "list.txt",
            "trained_network_name": model,
            "analysis_settings": {"reference_results": str(old.results)},
            "export_settings": {"map_one_file": limit},
        }
        return plan_workflow(config, 1)

    assert plan(OLD).has_map_folder
    assert not plan(OLD + 1).has_map_folder
    with pytest.raises(AstromorphError, match="`trained_network_name` is not set"):
        plan(OLD, None)
