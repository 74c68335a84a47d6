"""Single images are prepared as in a run, without PyTorch."""

import json

import numpy as np
import pytest
from astropy.io import fits

from astromorph.artefacts.columns import CATALOGUE_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import write_csv
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.errors import AstromorphError
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.list_reference import ListReference
from astromorph.preprocessing.preparation import (
    Preparation,
    read_preparation,
    run_reference,
)
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse

PATHS = ("a", "b", "c")


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of three images of two bands with different brightness."""
    folder = tmp_path_factory.mktemp("bands")
    draw = np.random.default_rng(3)
    for name in PATHS:
        for band in "gr":
            pixels = draw.normal(5, 1 + draw.random(), (40, 40)).astype(np.float32)
            pixels[10:20, 10:20] += 50 * draw.random()
            fits.PrimaryHDU(pixels).writeto(folder / f"{name}_{band}.fits")
    rows = ["path_g,path_r", *(f"{n}_g.fits,{n}_r.fits" for n in PATHS)]
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder / "list.csv"


def settings_with(**preprocessing):
    return parse({"preprocess_settings": {"size": 32, **preprocessing}}, "test")


@pytest.mark.parametrize("scope", ["image", "dataset"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_images_equal_those_of_a_shard(listed, tmp_path, scope, dtype):
    """Bit for bit, after a round trip through JSON; with a common scale too."""
    settings = settings_with(stretch_scope=scope, dtype=dtype)
    files = RunFiles.of_run(tmp_path, shards=1)
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    preprocess(listed, Shard("00000", 0, 3), files, data, preprocessing)
    reference = run_reference(files, settings, str(listed), channels=2)
    assert (reference.scale is None) == (scope == "image")
    path = tmp_path / "preprocessing.json"
    path.write_text(json.dumps(Preparation(settings, reference).to_dict()))
    preparation = read_preparation(path)
    images = read_shard(files.tensors("00000")).image_list()
    for name, image in zip(PATHS, images, strict=True):
        bands = [listed.parent / f"{name}_{band}.fits" for band in "gr"]
        pixels = preparation.prepare(bands)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, image.float().numpy())


def test_a_common_scale_of_several_files_needs_the_list(listed, tmp_path):
    """The catalogue only names the first file of each image."""
    settings = settings_with(stretch_scope="dataset")
    files = RunFiles.of_run(tmp_path)
    rows = [{"image_id": n, "path": listed.parent / f"{n}_g.fits"} for n in PATHS]
    write_csv(files.catalogue, CATALOGUE_COLUMNS, rows)
    with pytest.raises(AstromorphError, match="give the list with --datafile"):
        run_reference(files, settings, None, channels=2)
    assert run_reference(files, settings, None, channels=1).scale is not None
    own = settings_with()
    assert run_reference(files, own, None, channels=2) == ListReference(2)


def test_errors_name_the_image_and_the_file(listed, tmp_path):
    """Other channels, a missing image, and files that are no preparation."""
    preparation = Preparation(settings_with(), ListReference(2))
    image = listed.parent / "a_g.fits"
    with pytest.raises(AstromorphError, match=r"a_g\.fits: it has 1 channels"):
        preparation.prepare([image])
    with pytest.raises(AstromorphError, match=r"none\.fits: .*no such file"):
        preparation.prepare([tmp_path / "none.fits"])
    good = preparation.to_dict()
    limits = {key: [1.0, 2.0] for key in ("background", "noise", "low", "high")}
    path = tmp_path / "preprocessing.json"
    for text, message in (
        ("", "Expecting value"),
        ("[]", "list indices"),
        (json.dumps(good | {"format_version": 2}), "its format is"),
        (json.dumps(good | {"scale": limits | {"low": [1.0]}}), r"scale\.low"),
        (json.dumps(good | {"scale": limits | {"high": [1.0, np.inf]}}), r"\.high"),
        (json.dumps(good | {"scale": limits | {"other": [1.0, 2.0]}}), "other"),
    ):
        path.write_text(text)
        with pytest.raises(AstromorphError, match=rf"preprocessing\.json: .*{message}"):
            read_preparation(path)
    path.write_text(json.dumps(good | {"scale": limits}))
    assert read_preparation(path).reference.scale.high.tolist() == [1, 2]
    path.write_text(json.dumps(good | {"settings": {"data_settings": {"hduu": 1}}}))
    with pytest.raises(AstromorphError, match=r"preprocessing\.json: .*hduu"):
        read_preparation(path)
