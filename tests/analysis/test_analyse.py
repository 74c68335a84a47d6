"""What lies together: clusters, map, neighbours, near-duplicates, outliers."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from astromorph.analysis import clusters, neighbours
from astromorph.analysis.analyse import Embedded, analyse, analyse_embeddings
from astromorph.analysis.layout_2d import layout_2d
from astromorph.analysis.space import fit_space
from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.analysis_table import read_analysis
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, SPLIT_COLUMNS
from astromorph.errors import AstromorphError
from astromorph.settings.loading import parse
from astromorph.settings.sections import AnalysisSettings

KINDS, EACH, LENGTH = 5, 60, 48
PCA = {"analysis_settings": {"map": "pca"}}
UMAP = {"analysis_settings": {"map": "umap"}}


def blobs(seed=0, kinds=KINDS, each=EACH):
    """Embeddings of some kinds, in no order, and their kinds."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(kinds, 8)) * 6
    labels = draw.permutation(np.repeat(np.arange(kinds), each))
    latent = centres[labels] + draw.normal(size=(len(labels), 8))
    vectors = latent @ draw.normal(size=(8, LENGTH)) + 20
    vectors += 0.05 * draw.normal(size=vectors.shape)
    return vectors.astype(np.float32), labels


def embedded(vectors):
    ids = tuple(f"{k:016x}" for k in range(len(vectors)))
    return Embedded(ids, tuple(f"{k}.fits" for k in ids), np.asarray(vectors, "f4"))


def of(vectors, settings=PCA):
    return analyse_embeddings(embedded(vectors), parse(settings, "test"))


def check(analysis, result, number):
    """Everything is there, finite, and of the right shape."""
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
    assert "NaN" not in json.dumps(result)


@pytest.fixture(scope="module")
def known():
    """The analysis of five kinds, three planted duplicates and three oddities."""
    vectors, labels = blobs()
    draw = np.random.default_rng(1)
    copies = vectors[[3, 70, 200]] + [[0], [0.002], [0.01]] * draw.normal(size=LENGTH)
    odd = 20 + 25 * draw.normal(size=(3, LENGTH))
    everything = np.concatenate([vectors, copies, odd])
    return (*of(everything, UMAP), labels)


def test_clusters_match_the_kinds(known):
    """Adjusted Rand index 0.95 and more by both methods, the number found unasked."""
    from sklearn.metrics import adjusted_rand_score

    analysis, result, labels = known
    here = slice(0, len(labels))
    assert adjusted_rand_score(labels, analysis.kmeans[here]) > 0.95
    kept = analysis.hdbscan[here] >= 0
    assert kept.mean() > 0.8
    assert adjusted_rand_score(labels[kept], analysis.hdbscan[here][kept]) > 0.95
    method = result["methods"]["kmeans"]
    assert method["number"] == KINDS
    assert method["stability"] > 0.9
    assert all(c["stability"] > 0.85 for c in method["clusters"])
    assert max(result["silhouette_by_clusters"].items(), key=lambda i: i[1])[0] == "5"
    assert sum(c["size"] for c in method["clusters"]) == len(analysis)


def test_neighbours_share_the_kind(known):
    """Of twelve nearest more than 0.97, and on the map the five nearest too."""
    analysis, _, labels = known
    places = {image_id: k for k, image_id in enumerate(analysis.image_ids)}
    same = [
        labels[places[other]] == label
        for near, label in zip(analysis.neighbours, labels, strict=False)
        for other in near
        if places[other] < len(labels)
    ]
    assert np.mean(same) > 0.97
    placed = analysis.map[: len(labels)].astype(float)
    distance = ((placed[:, None] - placed[None]) ** 2).sum(axis=2)
    nearest = distance.argsort(axis=1)[:, 1:6]
    assert (labels[nearest] == labels[:, None]).mean() > 0.97


def test_planted_duplicates_are_found(known):
    """The same embedding, and ones that differ a little; hardly any others."""
    analysis, result, _ = known
    ids = analysis.image_ids
    for original, copy in ((3, 300), (70, 301), (200, 302)):
        assert ids[copy] in analysis.duplicates[original]
        assert ids[original] in analysis.duplicates[copy]
        assert analysis.neighbours[copy][0] == ids[original]
    assert 6 <= result["near_duplicates"] <= 12
    assert result["closest_pairs"][0] == {
        "image_ids": [ids[3], ids[300]], "distance": 0.0,
    }  # fmt: skip


def test_planted_oddities_are_the_top_outliers(known):
    """The three that are of no kind have ranks 1 to 3."""
    analysis, result, _ = known
    assert set(analysis.outlier_rank[303:].tolist()) == {1, 2, 3}
    assert result["outliers"][0]["score"] > 2
    assert np.median(analysis.outlier_score) == pytest.approx(1, rel=1e-3)


def test_each_cluster_has_one_representative_and_one_odd_member(known):
    """The representative is one of the kind's own; the page names both."""
    analysis, result, _ = known
    number = result["methods"]["kmeans"]["number"]
    for role in ("representative", "odd"):
        found = [k for k, r in enumerate(analysis.roles) if r == role]
        assert sorted(analysis.cluster[found].tolist()) == list(range(number))
    first = result["methods"]["kmeans"]["clusters"][0]["representative"]
    assert analysis.roles[analysis.image_ids.index(first)] == "representative"


def test_a_set_without_duplicates_has_hardly_any():
    """About one pair by chance, whatever the number of dimensions."""
    for length in (3, 10, 40):
        draw = np.random.default_rng(length)
        vectors = draw.normal(size=(2000, length))
        _, result = of(vectors, {"analysis_settings": {"map": "pca", "clusters": 2}})
        assert result["near_duplicate_pairs"] <= 6
        assert result["intrinsic_dimension"] < 1.2 * length


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 13, 15, 16, 17, 40])
@pytest.mark.parametrize("clusters_asked", [None, 7])
def test_few_images_are_no_error(number, clusters_asked):
    """Fewer images than clusters, than neighbours, than UMAP can lay out."""
    vectors = np.random.default_rng(number).normal(size=(number, 8))
    settings = {"analysis_settings": {"clusters": clusters_asked}}
    if number != 17:  # UMAP once is enough
        settings["analysis_settings"]["map"] = "pca"
    analysis, result = of(vectors, settings)
    check(analysis, result, number)
    if clusters_asked:
        assert analysis.kmeans.max() + 1 == min(number, 7)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_embeddings_are_no_error(length):
    """In one and two dimensions a direction says nothing: distances are Euclidean."""
    vectors = np.random.default_rng(0).normal(size=(60, length))
    analysis, result = of(vectors)
    check(analysis, result, 60)
    assert result["distance"] == ("cosine" if length > 2 else "Euclidean")
    assert result["near_duplicates"] < 6


@pytest.mark.parametrize("by", ["kmeans", "hdbscan"])
@pytest.mark.parametrize("others", [0, 1, 30])
def test_equal_embeddings_are_one_cluster_of_duplicates(others, by):
    """30 identical images, alone, with one other, or among 30 others."""
    draw = np.random.default_rng(0)
    vectors = np.full((30, 16), 0.1, np.float32)
    vectors = np.concatenate([vectors, draw.normal(size=(others, 16))])
    settings = {"analysis_settings": {"cluster_by": by}}
    analysis, result = of(vectors, settings)
    check(analysis, result, 30 + others)
    assert all(len(some) >= 12 for some in analysis.duplicates[:30])
    assert len(set(analysis.kmeans[:30].tolist())) == 1
    assert result["near_duplicates"] <= 30 + 2
    if others == 1:
        assert analysis.outlier_rank[30] == 1


def test_the_rounding_of_equal_images_is_no_structure():
    """What float32 embeddings of one image differ by counts as nothing."""
    noise = np.random.default_rng(0).normal(size=(50, 16))
    vectors = (3 * (1 + 1e-7 * noise)).astype(np.float32)
    analysis, result = of(vectors)
    check(analysis, result, 50)
    assert result["components"] == 1
    assert result["explained_variance"] == [0.0]
    assert not analysis.distances.any()


def test_neighbours_are_exact_and_ties_go_to_the_first():
    """As all pairs say; by descent nearly so."""
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


def test_beyond_the_limit_neighbours_are_found_by_descent(monkeypatch):
    """Whatever the library names: never a point itself, the nearest first, measured."""

    class Descent:
        """Exact, with its own number among them, but for one row that lacks it."""

        def __init__(self, points, n_neighbors, random_state, n_jobs):
            apart = np.linalg.norm(points[:, None] - points[None], axis=2)
            order = np.argsort(apart, axis=1)[:, : n_neighbors + 1]
            order[3, :-1] = order[3, 1:]
            self.neighbor_graph = order[:, :-1], None

    library = SimpleNamespace(NNDescent=Descent)
    monkeypatch.setitem(sys.modules, "pynndescent", library)
    points = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    exact, apart = neighbours.nearest_neighbours(points, 5, 0)
    found, distances = neighbours.nearest_neighbours(points, 5, 0, exact_up_to=100)
    assert (found != np.arange(200)[:, None]).all()
    assert np.array_equal(found, exact)
    np.testing.assert_allclose(distances, apart, atol=1e-6)


def test_labels_are_by_size_and_ties_by_the_first_image():
    """-1 stays."""
    labels = np.array([4, 4, -1, 9, 9, 2, 2, 2, 7])
    assert clusters.by_size(labels).tolist() == [1, 1, -1, 2, 2, 0, 0, 0, 3]


def test_an_unstable_cluster_is_called_so():
    """Cutting one round blob into six gives others each time."""
    blob = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)

    def again(part):
        return clusters.kmeans(part, 6, 0)

    trust = clusters.measure_trust(blob, again(blob), again, 0)
    assert trust.stability is not None
    assert trust.stability < 0.7
    assert min(s for s in trust.stabilities if s is not None) < 0.6


def test_images_beyond_the_sample_are_placed_among_it():
    """Each near its own kind on the map, as those that were laid out are."""
    vectors, labels = blobs(each=50)
    space = fit_space(vectors, 0.5, 64)
    points, plane = space.place(vectors), space.components(vectors)[:, :2]
    places = layout_2d(points, plane, AnalysisSettings(map_sample=120), 0)
    assert np.isfinite(places).all()
    others = np.setdiff1d(np.arange(250), clusters.sample_indices(250, 120, 0))
    distance = ((places[others, None] - places[None]) ** 2).sum(axis=2)
    nearest = distance.argsort(axis=1)[:, 1:6]
    assert (labels[nearest] == labels[others, None]).mean() > 0.95


def test_crowds_beyond_the_sample_go_with_the_nearest(monkeypatch):
    """HDBSCAN looks at some; the others' clusters match their kinds as well."""
    from sklearn.metrics import adjusted_rand_score

    vectors, labels = blobs(kinds=3, each=150)
    points = fit_space(vectors, 0.5, 64).place(vectors)
    monkeypatch.setattr(clusters, "CROWDED", 200)
    found = clusters.hdbscan(points, 20, 0)
    kept = found >= 0
    assert kept.mean() > 0.8
    assert adjusted_rand_score(labels[kept], found[kept]) > 0.95


def test_whitening_evens_the_components():
    """At 1 all have variance 1, at 0 their own."""
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(400, 4)) * [8, 4, 2, 1]).astype(np.float32)
    for whiten, expected in ((1.0, [1, 1, 1, 1]), (0.0, [8, 4, 2, 1])):
        components = fit_space(vectors, whiten, 64).components(vectors)
        np.testing.assert_allclose(components.std(axis=0), expected, rtol=0.15)


@pytest.fixture
def files(tmp_path):
    """Catalogue, split and embeddings of blobs; every tenth image is left out."""
    vectors, labels = blobs(each=20)
    rows = [
        {"image_id": f"{k:016x}", "path": f"<b>&{k}.fits", "label": f"kind {label}"}
        for k, label in enumerate(labels)
    ]
    artefacts.write_csv(tmp_path / "catalogue.csv", (*CATALOGUE_COLUMNS, "label"), rows)
    fates = [
        {"image_id": row["image_id"], "subset": "none" if k % 10 == 0 else "train"}
        for k, row in enumerate(rows)
    ]
    artefacts.write_csv(tmp_path / "split.csv", SPLIT_COLUMNS, fates)
    paths = []
    for name, part in (("0", slice(0, 64)), ("1", slice(64, 100))):
        paths.append(tmp_path / f"{name}.parquet")
        ids = tuple(row["image_id"] for row in rows[part])
        write_embeddings(paths[-1], Embeddings(ids, vectors[part]))
    return tmp_path, paths


def run(files, folder, settings=UMAP, threads=1):
    folder.mkdir(exist_ok=True)
    outputs = [folder / f"analysis.{end}" for end in ("parquet", "json", "html")]
    source, paths = files
    analyse(
        parse(settings, "test"), source / "catalogue.csv", source / "split.csv", paths,
        *outputs, threads,
    )  # fmt: skip
    return [path.read_bytes() for path in outputs]


def test_the_same_seed_gives_the_same_bytes(files, tmp_path):
    """All three files, whatever the number of cores; another seed another map."""
    once = run(files, tmp_path / "a")
    assert once == run(files, tmp_path / "b", threads=2)
    other = run(files, tmp_path / "c", UMAP | {"seed": 1})
    assert once[0] != other[0]


def test_the_files_hold_what_the_split_kept(files, tmp_path):
    """A row per image, in order; settings and versions; paths are escaped."""
    _, summary, page = run(files, tmp_path / "a", PCA)
    analysis = read_analysis(tmp_path / "a" / "analysis.parquet")
    assert analysis.image_ids == tuple(f"{k:016x}" for k in range(100) if k % 10)
    result = json.loads(summary)
    assert result["images"] == 90
    assert result["settings"]["analysis_settings"]["map"] == "pca"
    assert "umap-learn" in result["versions"]
    text = page.decode()
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text
    assert "90 images, 5 clusters" in text


def test_nothing_embedded_is_an_error(files, tmp_path):
    """It says which file, and what to do."""
    source, paths = files
    write_embeddings(paths[0], Embeddings((), np.empty((0, LENGTH), np.float32)))
    with pytest.raises(AstromorphError, match=r"split\.csv: no image is left"):
        run((source, paths[:1]), tmp_path / "a")
