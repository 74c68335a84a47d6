"""The step `analyse`: clusters, layout, neighbours, near-duplicates, outliers."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from finished_run import SIDE, write_tensors
from sklearn.metrics import adjusted_rand_score

from astromorph.analysis import clusters, neighbours
from astromorph.analysis.analyse import analyse, analyse_embeddings
from astromorph.analysis.embedded_images import EmbeddedImages
from astromorph.analysis.space import fit_space, layout_2d
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import read_analysis
from astromorph.artefacts.columns import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.run_files import RunFiles
from astromorph.errors import AstromorphError
from astromorph.settings.sections import AnalysisSettings

KINDS, EACH, LENGTH = 5, 60, 48
PCA, UMAP = {"map": "pca"}, {"map": "umap"}


def blobs(seed=0, kinds=KINDS, each=EACH):
    """Embeddings of several kinds in random order, and their kinds."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(kinds, 8)) * 6
    labels = draw.permutation(np.repeat(np.arange(kinds), each))
    latent = centres[labels] + draw.normal(size=(len(labels), 8))
    vectors = latent @ draw.normal(size=(8, LENGTH)) + 20
    vectors += 0.05 * draw.normal(size=vectors.shape)
    return vectors.astype(np.float32), labels


def analyse_vectors(vectors, rules=PCA):
    """Analysis and summary of embeddings."""
    ids = tuple(f"{k:016x}" for k in range(len(vectors)))
    paths = tuple(f"{k}.fits" for k in ids)
    images = EmbeddedImages(ids, paths, np.asarray(vectors, "f4"))
    return analyse_embeddings(images, AnalysisSettings(**rules), seed=0)


def check_complete(analysis, summary, number):
    """All columns have the right shape and finite values."""
    nearest = min(12, number - 1)
    assert len(analysis) == number
    assert analysis.map.shape == analysis.pca.shape == (number, 2)
    assert analysis.distances.shape == (number, nearest)
    for values in (analysis.map, analysis.pca, analysis.distances):
        assert np.isfinite(values).all()
    assert np.isfinite(analysis.outlier_score).all()
    assert sorted(analysis.outlier_rank.tolist()) == list(range(1, number + 1))
    for image_id, near in zip(analysis.image_ids, analysis.neighbours, strict=True):
        assert len(near) == len(set(near)) == nearest
        assert image_id not in near
    for labels in (analysis.cluster, analysis.kmeans, analysis.hdbscan):
        sizes = Counter(labels.tolist())
        sizes.pop(-1, None)
        assert sorted(sizes) == list(range(len(sizes)))
        counts = [sizes[k] for k in range(len(sizes))]
        assert counts == sorted(counts, reverse=True)
    assert "NaN" not in json.dumps(summary)


@pytest.fixture(scope="module")
def planted():
    """The analysis of five kinds with three planted duplicates and three outliers."""
    vectors, labels = blobs()
    draw = np.random.default_rng(1)
    copies = vectors[[3, 70, 200]] + [[0], [0.002], [0.01]] * draw.normal(size=LENGTH)
    outliers = 20 + 25 * draw.normal(size=(3, LENGTH))
    return (*analyse_vectors(np.concatenate([vectors, copies, outliers]), UMAP), labels)


def test_clusters_match_the_kinds(planted):
    """Adjusted Rand index above 0.95 by both methods, with the number chosen."""
    analysis, summary, labels = planted
    number = len(labels)
    assert adjusted_rand_score(labels, analysis.kmeans[:number]) > 0.95
    hdbscan = analysis.hdbscan[:number]
    clustered = hdbscan >= 0
    assert clustered.mean() > 0.8
    assert adjusted_rand_score(labels[clustered], hdbscan[clustered]) > 0.95
    method = summary["methods"]["kmeans"]
    assert method["number"] == KINDS
    assert method["stability"] > 0.9
    assert all(c["stability"] > 0.85 for c in method["clusters"])
    assert max(summary["silhouette_by_clusters"].items(), key=lambda i: i[1])[0] == "5"
    assert sum(c["size"] for c in method["clusters"]) == len(analysis)


def test_neighbours_share_the_kind(planted):
    """More than 0.97 of the twelve nearest, and of the five nearest on the map."""
    analysis, _, labels = planted
    indices = {image_id: k for k, image_id in enumerate(analysis.image_ids)}
    same = [
        labels[indices[other]] == label
        for near, label in zip(analysis.neighbours, labels, strict=False)
        for other in near
        if indices[other] < len(labels)
    ]
    assert np.mean(same) > 0.97
    layout = analysis.map[: len(labels)].astype(float)
    distance = ((layout[:, None] - layout[None]) ** 2).sum(axis=2)
    nearest = distance.argsort(axis=1)[:, 1:6]
    assert (labels[nearest] == labels[:, None]).mean() > 0.97


def test_planted_duplicates_are_detected(planted):
    """Equal and slightly different embeddings, and hardly any other pairs."""
    analysis, summary, _ = planted
    ids = analysis.image_ids
    for original, copy in ((3, 300), (70, 301), (200, 302)):
        assert ids[copy] in analysis.duplicates[original]
        assert ids[original] in analysis.duplicates[copy]
        assert analysis.neighbours[copy][0] == ids[original]
    assert 6 <= summary["near_duplicates"] <= 12
    closest = {"image_ids": [ids[3], ids[300]], "distance": 0.0}
    assert summary["closest_pairs"][0] == closest


def test_planted_outliers_have_the_first_ranks(planted):
    """The three images that belong to no kind have ranks 1 to 3."""
    analysis, summary, _ = planted
    assert set(analysis.outlier_rank[303:].tolist()) == {1, 2, 3}
    assert summary["outliers"][0]["score"] > 2
    assert np.median(analysis.outlier_score) == pytest.approx(1, rel=1e-3)


def test_each_cluster_has_one_representative_and_one_odd_member(planted):
    """Both are members of the cluster; the summary names the representative."""
    analysis, summary, _ = planted
    number = summary["methods"]["kmeans"]["number"]
    for role in ("representative", "odd"):
        members = [k for k, r in enumerate(analysis.roles) if r == role]
        assert sorted(analysis.cluster[members].tolist()) == list(range(number))
    first = summary["methods"]["kmeans"]["clusters"][0]["representative"]
    assert analysis.roles[analysis.image_ids.index(first)] == "representative"


@pytest.mark.slow
def test_random_embeddings_have_hardly_any_duplicates():
    """About one pair by chance, for any number of dimensions."""
    for length in (3, 10, 40):
        vectors = np.random.default_rng(length).normal(size=(2000, length))
        _, summary = analyse_vectors(vectors, {"map": "pca", "clusters": 2})
        assert summary["near_duplicate_pairs"] <= 6
        assert summary["intrinsic_dimension"] < 1.2 * length


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 13, 15, 16, 17, 40])
@pytest.mark.parametrize("clusters", [None, 7])
def test_few_images_are_analysed(number, clusters):
    """Fewer images than clusters, than neighbours, or than UMAP needs."""
    vectors = np.random.default_rng(number).normal(size=(number, 8))
    method = "umap" if number == 17 else "pca"  # UMAP once is enough
    analysis, summary = analyse_vectors(vectors, {"clusters": clusters, "map": method})
    check_complete(analysis, summary, number)
    if clusters:
        assert analysis.kmeans.max() + 1 == min(number, 7)


def test_compiled_functions_of_umap_are_kept():
    """The next process reads them from the disk instead of compiling them."""
    points = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    layout_2d(points, points[:, :2], AnalysisSettings(**UMAP), 0, 1)
    module = sys.modules["umap.umap_"]
    for name in ("smooth_knn_dist", "compute_membership_strengths"):
        assert getattr(module, name).stats.cache_path, name


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_embeddings_are_analysed(length):
    """In one and two dimensions, distances are Euclidean."""
    vectors = np.random.default_rng(0).normal(size=(60, length))
    analysis, summary = analyse_vectors(vectors)
    check_complete(analysis, summary, 60)
    assert summary["distance"] == ("cosine" if length > 2 else "Euclidean")
    assert summary["near_duplicates"] < 6


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
@pytest.mark.parametrize("others", [0, 1, 30])
def test_equal_embeddings_are_one_cluster_of_duplicates(others, method):
    """30 identical images alone, with one other image, or among 30 others."""
    draw = np.random.default_rng(0)
    vectors = np.full((30, 16), 0.1, np.float32)
    vectors = np.concatenate([vectors, draw.normal(size=(others, 16))])
    analysis, summary = analyse_vectors(vectors, {"cluster_by": method})
    check_complete(analysis, summary, 30 + others)
    assert all(len(some) >= 12 for some in analysis.duplicates[:30])
    assert len(set(analysis.kmeans[:30].tolist())) == 1
    assert summary["near_duplicates"] <= 30 + 2
    if others == 1:
        assert analysis.outlier_rank[30] == 1


def test_rounding_errors_of_equal_images_are_ignored():
    """Differences at the precision of float32 do not form clusters."""
    noise = np.random.default_rng(0).normal(size=(50, 16))
    vectors = (3 * (1 + 1e-7 * noise)).astype(np.float32)
    analysis, summary = analyse_vectors(vectors)
    check_complete(analysis, summary, 50)
    assert summary["components"] == 1
    assert summary["explained_variance"] == [0.0]
    assert not analysis.distances.any()


def test_neighbours_are_exact_and_ties_go_to_the_first():
    """They equal those from all pairs of distances."""
    points = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    points[100] = points[7]
    points[200] = points[7]
    pairs = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)
    np.fill_diagonal(pairs, np.inf)
    order = np.argsort(pairs, axis=1, kind="stable")[:, :5]
    indices, distances = neighbours.nearest_neighbours(points, 5, 0)
    assert np.array_equal(indices, order)
    np.testing.assert_allclose(
        distances, np.take_along_axis(pairs, order, axis=1), atol=1e-6
    )
    assert distances[7, 0] == distances[7, 1] == 0
    assert indices[100, :2].tolist() == [7, 200]


def test_many_points_have_neighbours_by_descent(monkeypatch):
    """The point itself is removed, and the others are sorted by measured distance."""

    class Descent:
        """Exact neighbours with the point itself, which is missing in one row."""

        def __init__(self, points, n_neighbors, random_state, n_jobs):
            pairs = np.linalg.norm(points[:, None] - points[None], axis=2)
            order = np.argsort(pairs, axis=1)[:, : n_neighbors + 1]
            order[3, :-1] = order[3, 1:]
            self.neighbor_graph = order[:, :-1], None

    library = SimpleNamespace(NNDescent=Descent)
    monkeypatch.setitem(sys.modules, "pynndescent", library)
    points = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    exact, exact_distances = neighbours.nearest_neighbours(points, 5, 0)
    indices, distances = neighbours.nearest_neighbours(points, 5, 0, max_exact=100)
    assert (indices != np.arange(200)[:, None]).all()
    assert np.array_equal(indices, exact)
    np.testing.assert_allclose(distances, exact_distances, atol=1e-6)


def test_labels_are_by_size_and_ties_by_the_first_image():
    """-1, no cluster, is not changed."""
    labels = np.array([4, 4, -1, 9, 9, 2, 2, 2, 7])
    assert clusters.sort_by_size(labels).tolist() == [1, 1, -1, 2, 2, 0, 0, 0, 3]


def test_clusters_of_one_gaussian_are_unstable():
    """Dividing a single blob into six gives different clusters each time."""
    blob = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)

    def refit(part):
        return clusters.kmeans(part, 6, 0)

    quality = clusters.measure_quality(blob, refit(blob), refit, 0)
    assert quality.stability is not None
    assert quality.stability < 0.7
    assert min(s for s in quality.stabilities if s is not None) < 0.6


def test_images_outside_the_sample_are_positioned_near_their_kind():
    """They are placed as well as those that UMAP lays out."""
    vectors, labels = blobs(each=50)
    space = fit_space(vectors, 0.5, 64)
    points, components = space.project(vectors), space.components(vectors)[:, :2]
    layout = layout_2d(points, components, AnalysisSettings(map_sample=120), 0)
    assert np.isfinite(layout).all()
    others = np.setdiff1d(np.arange(250), clusters.sample_indices(250, 120, 0))
    distance = ((layout[others, None] - layout[None]) ** 2).sum(axis=2)
    nearest = distance.argsort(axis=1)[:, 1:6]
    assert (labels[nearest] == labels[others, None]).mean() > 0.95


def test_hdbscan_assigns_images_outside_its_sample(monkeypatch):
    """They join the cluster of the nearest image in the sample."""
    vectors, labels = blobs(kinds=3, each=150)
    points = fit_space(vectors, 0.5, 64).project(vectors)
    monkeypatch.setattr(clusters, "MAX_HDBSCAN", 200)
    predicted = clusters.hdbscan(points, 20, 0)
    clustered = predicted >= 0
    assert clustered.mean() > 0.8
    assert adjusted_rand_score(labels[clustered], predicted[clustered]) > 0.95


def test_whitening_scales_the_components():
    """At 1, all have variance 1; at 0, their variances do not change."""
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(400, 4)) * [8, 4, 2, 1]).astype(np.float32)
    for whiten, expected in ((1.0, [1, 1, 1, 1]), (0.0, [8, 4, 2, 1])):
        components = fit_space(vectors, whiten, 64).components(vectors)
        np.testing.assert_allclose(components.std(axis=0), expected, rtol=0.15)


@pytest.fixture
def files(tmp_path):
    """A run with embeddings of blobs; the split excludes every tenth image."""
    files = RunFiles.of_run(tmp_path / "run", shards=2)
    vectors, labels = blobs(each=20)
    rows = [
        {"image_id": f"{k:016x}", "path": f"<b>&{k}.fits", "label": f"kind {label}"}
        for k, label in enumerate(labels)
    ]
    artefacts.write_csv(files.catalogue, (*CATALOGUE_COLUMNS, "label"), rows)
    assignments = [
        {"image_id": row["image_id"], "subset": "none" if k % 10 == 0 else "train"}
        for k, row in enumerate(rows)
    ]
    artefacts.write_csv(files.split, SPLIT_COLUMNS, assignments)
    for shard, part in zip(files.shards, (slice(64), slice(64, 100)), strict=True):
        ids = tuple(row["image_id"] for row in rows[part])
        write_embeddings(files.embeddings(shard), Embeddings(ids, vectors[part]))
        pixels = np.random.default_rng(0).random((len(ids), 1, SIDE, SIDE))
        write_tensors(files.tensors(shard), ids, pixels.astype(np.float32))
    return files


def run(files, rules=UMAP, seed=0, threads=1):
    """The bytes of the three files that the step writes."""
    analyse(files, AnalysisSettings(**rules), seed, threads)
    outputs = files.analysis, files.analysis_summary, files.analysis_page
    return [path.read_bytes() for path in outputs]


def test_the_same_seed_gives_the_same_bytes(files):
    """All three files, for any number of threads; another seed gives another map."""
    first = run(files)
    assert first == run(files, threads=2)
    assert first[0] != run(files, seed=1)[0]


def test_the_files_contain_the_images_that_the_split_does_not_exclude(files):
    """A row per image, in order; settings and versions; paths are escaped."""
    _, text, page = run(files, PCA)
    analysis = read_analysis(files.analysis)
    assert analysis.image_ids == tuple(f"{k:016x}" for k in range(100) if k % 10)
    summary = json.loads(text)
    assert summary["images"] == 90
    assert summary["settings"]["analysis_settings"]["map"] == "pca"
    assert "umap-learn" in summary["versions"]
    html = page.decode()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "90 images, 5 clusters" in html


def test_the_page_shows_pictures_of_the_images_that_it_names(files, monkeypatch):
    """Of clusters, pairs and outliers; those of small clusters have only a name."""

    def pictures() -> tuple[int, int]:
        page = files.analysis_page.read_text()
        return page.count("<figure"), page.count("<img")

    analyse(files, AnalysisSettings(map="pca"), 0, 1)
    summary = json.loads(files.analysis_summary.read_text())
    clusters = [c for m in summary["methods"].values() for c in m["clusters"]]
    in_tables = sum(1 + (cluster["odd"] is not None) for cluster in clusters)
    others = 2 * len(summary["closest_pairs"]) + len(summary["outliers"])
    assert pictures() == (in_tables + others, in_tables + others)
    monkeypatch.setattr("astromorph.analysis.analyse.MAX_PICTURED", 0)
    analyse(files, AnalysisSettings(map="pca"), 0, 1)
    figures, shown = pictures()
    assert figures == in_tables + others
    assert others <= shown < figures
    assert "The 0 largest clusters are shown" in files.analysis_page.read_text()


def test_a_run_without_embeddings_is_an_error(files):
    """The message names the file and says what to do."""
    for shard in files.shards:
        none = Embeddings((), np.empty((0, LENGTH), np.float32))
        write_embeddings(files.embeddings(shard), none)
    with pytest.raises(AstromorphError, match=r"split\.csv: no image has an embedding"):
        run(files)
