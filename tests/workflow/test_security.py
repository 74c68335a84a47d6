"""Untrusted files, names and settings do no harm."""

import ast
import bz2
import csv
import gzip
import lzma
import os
import re
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits

from astromorph.artefacts.tables import FORMULA_STARTS
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.byol.build import load_model
from astromorph.compat import convert
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.fits import file as fits_file
from astromorph.fits.image import describe_image, read_image
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.settings.sections import DataSettings
from astromorph.sky.simulate import simulate
from astromorph.training.checkpoints import Checkpoints
from astromorph.training.trainer import ByolTrainer

ROOT = Path(__file__).parents[2]


# ---- nothing is unpickled ----


class Malicious:
    """An object that runs a program when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def trainer() -> ByolTrainer:
    return ByolTrainer(AstroMorphologyModel(1), device="cpu", precision="float32")


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (read_shard, "astromorph-tensors"),
        (load_model, "astromorph-model"),
        (lambda path: convert(path, "model.pt"), "astromorph-model"),
        (lambda path: trainer().load(path), "astromorph-trainer"),
    ],
    ids=["tensors", "model", "convert", "trainer"],
)
@pytest.mark.parametrize("disguised", [False, True])
def test_nothing_is_unpickled(tmp_path, monkeypatch, reader, kind, disguised):
    """The file is refused by name; the program in it does not run."""
    monkeypatch.chdir(tmp_path)
    head = {"format": kind, "format_version": 1} if disguised else {}
    torch.save(head | {"x": Malicious()}, "evil.pt")
    with pytest.raises(AstromorphError, match=r"evil\.pt"):
        reader("evil.pt")
    assert os.listdir() == ["evil.pt"]


def test_a_pickled_checkpoint_is_set_aside(tmp_path, monkeypatch, caplog):
    """Like a damaged one; training starts without it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-3").mkdir()
    values = {"format": "astromorph-checkpoint", "format_version": 2, "epochs": 3}
    torch.save(values | {"trainer": Malicious()}, "a-3/step-000000001.pt")
    assert not Checkpoints(tmp_path, "a", 3, 0).restore(trainer())
    assert "could run any program" in caplog.text
    assert os.listdir() == ["a-3"]
    assert os.listdir("a-3") == ["step-000000001.damaged"]


def test_no_module_can_unpickle_or_run_text():
    """Unsafe functions are not called, only the safe readers of torch and numpy."""
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for path in sorted((ROOT / "astromorph").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {name.name.partition(".")[0] for name in node.names}
                assert not names & banned, path
            if isinstance(node, ast.ImportFrom) and node.module in banned:
                assert [n.name for n in node.names] == ["UnpicklingError"], path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                said = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert called not in ("eval", "exec", "os.system", "yaml.load"), path
                assert said.get("shell", "False") == "False", path
                if called == "torch.load":
                    assert said["weights_only"] == "True", path
                if called == "np.load":
                    assert said["allow_pickle"] == "False", path


# ---- names, header texts, paths, settings: one run of the real workflow ----

FOLDER = "a $(touch pwned) ; 'x' \"y\" {z} `touch pwned` & | > pwned \\ % # é"
LIST = "list $(touch pwned) ; 'x' \"y\" {z} `touch pwned` & \\ # é.csv"
MODEL = "model $(touch pwned) ; 'x' \"y\" z & é.pt"
ALERT = "<script>alert(666)</script>"
TEXTS = [
    ALERT, '"><img src=x onerror=alert(666)>', "</style></script>" + ALERT,
    "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1+1", "-1+1", "\t=1+1", "'=1+1",
    "tab\there", "line\nbreak", "return\rhere", "\x1b[2Jcleared\x1b]0;title\x07",
    "\u202eright to left", "\u2028line\u2029paragraph\x85next", "\U0001f300 ü",
    "{braces} {{more}} %s %d \\n", "$(touch pwned)", "`touch pwned`", "; touch pwned",
    "' onmouseover='alert(666)", "${alert(666)}", "<!--", "]]>", "nul\0byte",
]  # fmt: skip
NAMES = [
    f"{ALERT.replace('/', '_')}.fits", "=cmd().fits", "-rf.fits", "line\nbreak.fits",
    "tab\t.fits", "$(touch pwned).fits", "'\"`{a}.fits", "\x1b[2J.fits",
    "é \u202e.fits",
]  # fmt: skip
OUTSIDE = ["../outside.fits", "../../../../../../etc/passwd", "/dev/zero", "results"]
SETTINGS = {
    "datafile": f"in/{LIST}",
    "network_name": "amm",
    "epochs": 1,
    "batch_size": 8,
    "core_limit": 2,
    "preprocess_settings": {"size": 16},
    "training_settings": {"simulated_images": 8},
    "inference_settings": {"symmetry": "none"},
    "analysis_settings": {"map": "pca"},
    "data_settings": {"header_columns": ["FILTER", "$(touch pwned)"]},
    "validate_settings": {"max_bad_fraction": 1.0},
}


def workflow(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the real workflow in a folder."""
    options = ("--cores=2", "--directory", folder.name, *options)
    arguments = ["-s", str(ROOT / "Snakefile"), *options]
    return command_line.run(arguments, folder.parent, "snakemake")


def everything(folder: Path) -> set[str]:
    """All names below a folder except where a run may write."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    run = f"{FOLDER}/"
    own = (f"{run}results", f"{run}.snakemake", f"{run}.cache")
    return {name for name in found if not name.startswith(own)}


def hostile_list(folder: Path) -> int:
    """Write images with hostile names, headers and labels; return their number."""
    made = sorted(simulate(folder, 30, seed=1).parent.glob("*.fits"))
    (folder / "filelist.csv").unlink()
    rows = []
    for k, path in enumerate(made):
        plain = TEXTS[k % len(TEXTS)].encode("ascii", "replace").decode()
        text = "".join(c for c in plain if c.isprintable())[:60]
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["OBJECT"] = hdus[0].header["FILTER"] = text
            hdus[0].header["BUNIT"] = hdus[0].header["TELESCOP"] = text[:20]
        if k < len(NAMES):
            path = path.rename(folder / NAMES[k])
        rows.append((path.name, TEXTS[k % len(TEXTS)], text))
    raw = made[-1].read_bytes()
    at = raw.index(b"OBJECT  = '") + 11
    made[-1].write_bytes(raw[:at] + b"\x1b\x00\xff" + raw[at + 3 :])
    with zipfile.ZipFile(folder / "slip.zip", "w") as archive:
        archive.writestr("../../slipped.fits", made[-2].read_bytes())
    rows += [(name, "", "") for name in (*OUTSIDE, "slip.zip", "nul\0.fits")]
    with open(folder / LIST, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "=column<b>"])
        writer.writerows(rows)
    return len(rows)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Iterator[tuple[Path, int]]:
    """A run in which all names are hostile."""
    base = tmp_path_factory.mktemp("hostile")
    folder = base / FOLDER
    (folder / "in").mkdir(parents=True)
    (folder / "config").mkdir()
    number = hostile_list(folder / "in")
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    before = everything(base)
    done = workflow(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert everything(base) == before
    yield folder, number


@pytest.mark.slow
def test_names_and_settings_start_no_program_and_write_nowhere_else(hostile):
    """Two runs with such names only create results."""
    folder, _ = hostile
    model = folder / MODEL
    model.write_bytes((folder / "results/model/model.pt").read_bytes())
    settings = SETTINGS | {"trained_network_name": MODEL}
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    before = everything(folder.parent)
    done = workflow(folder, "results/embeddings/00000.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "infer" in done.stdout + done.stderr
    assert everything(folder.parent) == before
    assert not list(folder.parent.rglob("pwned"))
    assert not list(folder.parent.rglob("slipped*"))


@pytest.mark.slow
def test_every_table_has_its_rows_and_no_formula(hostile):
    """A CSV has a record for each row of the list and no spreadsheet formulas."""
    folder, number = hostile
    tables = sorted((folder / "results").rglob("*.csv"))
    assert {"catalogue.csv", "split.csv", "embeddings.csv"} <= {t.name for t in tables}
    for path in tables:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} == {len(rows[0])}, path
        for cell in (cell for row in rows for cell in row):
            is_number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|-?inf|nan", cell)
            assert is_number or cell[:1] not in FORMULA_STARTS[1:] or not cell, path
        if path.name in ("catalogue.csv", "split.csv"):
            assert len(rows) == number + 1


@pytest.mark.slow
def test_every_tsv_has_a_line_per_row(hostile):
    """Cells contain no tabs or line breaks."""
    folder, _ = hostile
    with open(folder / "results/export/embeddings.csv", newline="") as table:
        images = sum(1 for _ in csv.reader(table)) - 1
    assert images >= 30
    tables = sorted((folder / "results/export").rglob("*.tsv"))
    assert {"metadata.tsv", "tensors.tsv"} <= {path.name for path in tables}
    for path in tables:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert {line.count("\t") for line in lines} == {lines[0].count("\t")}, path
        assert len(lines) - (path.name == "metadata.tsv") == images


class Harm(HTMLParser):
    """Finds parts of a page from the list that would run or be read as markup."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.within, self.found, self.texts = "", [], []

    def handle_starttag(self, tag, attributes):
        """Check that no attribute runs anything."""
        self.within = tag
        for name, value in attributes:
            if name.startswith("on") or (value or "").startswith("javascript:"):
                self.found.append(f"<{tag} {name}={value}>")

    def handle_endtag(self, tag):
        """Plain text follows."""
        self.within = ""

    def handle_comment(self, data):
        """Record a comment."""
        if "alert" in data:
            self.found.append(data)

    def handle_data(self, data):
        """Record the text of a script or of the page."""
        if self.within == "script" and data.lstrip().startswith("alert("):
            self.found.append(f"<script>{data}")
        if self.within not in ("script", "style"):
            self.texts.append(data)


@pytest.mark.slow
def test_every_page_shows_markup_as_text(hostile):
    """No tag, attribute or script of an HTML page comes from a name or a header."""
    folder, _ = hostile
    pages = sorted((folder / "results").rglob("*.html"))
    assert "validation.html" in {page.name for page in pages}
    shown = ""
    for page in pages:
        parser = Harm()
        parser.feed(page.read_text(encoding="utf-8"))
        assert not parser.found, page
        shown += "".join(parser.texts)
    assert "alert(666)" in shown  # as text


@pytest.mark.slow
def test_every_log_has_lines_that_begin_with_the_time(hostile):
    """No name can end a line, move the cursor or forge a record."""
    folder, _ = hostile
    logs = sorted((folder / "results/logs").rglob("*.log"))
    assert len(logs) >= 6
    for path in logs:
        text = path.read_text(encoding="utf-8")
        unseen = [c for c in text if not c.isprintable() and c not in "\n\r"]
        assert not unseen, path
        for line in filter(None, re.split(r"[\n\r]", text)):
            own = re.match(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) |.*\d+%|.*\d+it", line)
            assert own, (path, line)


@pytest.mark.slow
def test_names_of_results_do_not_come_from_the_list(hostile):
    """All result files have names of the package."""
    folder, _ = hostile
    assert (folder / "results" / "catalogue.csv").exists()
    for path in (folder / "results").rglob("*"):
        assert re.fullmatch(r"[\w.+-]+", path.name), path


# ---- bombs ----


def declared(*lengths: int, extension: bool = False) -> bytes:
    """A header that declares an image (or a table) with given axis lengths."""
    cards = ["XTENSION= 'BINTABLE'" if extension else "SIMPLE  =                    T"]
    cards += [f"BITPIX  = {8:20d}", f"NAXIS   = {len(lengths):20d}"]
    cards += [f"NAXIS{k:<3}= {n:20d}" for k, n in enumerate(lengths, start=1)]
    cards += [f"PCOUNT  = {0:20d}", f"GCOUNT  = {1:20d}", f"TFIELDS = {0:20d}"]
    text = "".join(card.ljust(80) for card in [*cards, "END"])
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


def zipped(data: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", data)
    return path.read_bytes()


PACKERS = {
    "plain": lambda data, path: data,
    "gzip": lambda data, path: gzip.compress(data, 1),
    "bzip2": lambda data, path: bz2.compress(data, 1),
    "xz": lambda data, path: lzma.compress(data, preset=0),
    "zip": zipped,
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (declared(10**6, 10**6), "more than `data_settings.max_pixels`"),
        (declared(10**18, 10**18), "more than `data_settings.max_pixels`"),
        (declared(16_000, 16_000) + bytes(10**6), "truncated"),
        (
            declared().replace(b"END", b"   ") + b"COMMENT".ljust(80) * 3 * 10**5,
            "no END",
        ),
        (bytes(2 * 10**7), "not a FITS file"),
    ],
    ids=["pixels", "more pixels", "short", "header", "zeros"],
)
def test_bombs_are_refused_before_they_take_memory(tmp_path, pack, content, message):
    """By their declared size, in any compression; little is unpacked."""
    path = tmp_path / "a.fits"
    path.write_bytes(pack(content, tmp_path / "z"))
    before = memory()
    # A file that is shorter than declared is only detected when all of it is read.
    for reader in (
        (read_image,) if message == "truncated" else (describe_image, read_image)
    ):
        with pytest.raises(FitsImageError, match=message):
            reader([path], DataSettings())
    assert memory() - before < 100e6


def memory() -> int:
    """Peak memory so far, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024


def test_a_table_without_end_before_the_image_is_not_unpacked(tmp_path):
    """A compressed file declares petabytes that would have to be skipped."""
    table = declared(2**25, 2**25, extension=True)
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(declared() + table + bytes(10**6)))
    for reader in (describe_image, read_image):
        with pytest.raises(
            FitsImageError, match="above the limit for compressed files"
        ):
            reader([path], DataSettings())
    assert fits_file.MAX_DECOMPRESSED > 2**32  # what people have is below


def tiled(path: Path, method: str, tile: bytes, offset: int = 0) -> None:
    """Write an image of 200 by 200 pixels in one tile, compressed with gzip."""
    pixels = np.random.default_rng(1).normal(size=(200, 200)).astype(np.float32)
    level = 0.0 if method.startswith("GZIP") else 16.0
    image = fits.CompImageHDU(
        pixels, compression_type=method, tile_shape=(200, 200), quantize_level=level
    )
    image.writeto(path)
    with fits.open(path, disable_image_compression=True) as file:
        header, names = file[1].header.copy(), file[1].columns.names
    packed = "COMPRESSED_DATA" if level == 0 else "GZIP_COMPRESSED_DATA"
    row = b"".join(
        np.array([len(tile) * (name == packed), offset], ">i4").tobytes()
        if name.endswith("DATA") else np.ones(1, ">f8").tobytes()
        for name in names
    )  # fmt: skip
    header["NAXIS1"], header["PCOUNT"] = len(row), len(tile) - offset
    data = row + tile + bytes(-offset)
    whole = fits.PrimaryHDU().header.tostring() + header.tostring()
    path.write_bytes(whole.encode() + data + bytes(-len(data) % 2880))


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """300 MB of zeros in 300 kB, as two gzip members, the first of them small."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(bytes(10**7)) for _ in range(30)]
    return gzip.compress(bytes(100)) + b"".join(parts) + packer.flush()


@pytest.mark.parametrize("method", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
def test_a_tile_is_unpacked_no_further_than_its_pixels(tmp_path, bomb, method):
    """With any compression method, a tile may be compressed with gzip."""
    path = tmp_path / "a.fits"
    tiled(path, method, bomb)
    before = memory()
    with pytest.raises(
        FitsImageError, match="decompresses to more than the 320000 bytes"
    ):
        read_image([path], DataSettings())
    assert memory() - before < 50e6


def test_a_tile_before_the_first_is_refused(tmp_path, bomb):
    """Python would count its bytes from the end, where the bomb is."""
    path = tmp_path / "a.fits"
    tiled(path, "GZIP_1", bomb, offset=-len(bomb) - 100)
    before = memory()
    with pytest.raises(FitsImageError, match="outside the data of the table"):
        read_image([path], DataSettings())
    assert memory() - before < 50e6


def test_large_tiles_of_gzip_keep_their_pixels(tmp_path):
    """They are decoded after the check; of a cube, only the requested tiles."""
    cube = np.random.default_rng(1).normal(size=(5, 2, 200, 300)).astype(np.float32)
    path = tmp_path / "a.fits"
    image = fits.CompImageHDU(
        cube, compression_type="GZIP_1", quantize_level=0, tile_shape=(2, 1, 150, 300)
    )
    image.writeto(path)
    flat = cube.reshape(10, 200, 300)
    for planes, truth in ((7, flat[7:8]), ("channels 3:9", flat[3:9])):
        pixels = read_image([path], DataSettings(planes=planes))[1].pixels
        np.testing.assert_array_equal(pixels, truth)
    raw = path.read_bytes()
    assert raw.count(b"\x1f\x8b\x08") == 12  # tiles: 3 by 2 by 2
    at = raw.rindex(b"\x1f\x8b\x08")
    path.write_bytes(raw[:at] + bytes(100) + raw[at + 100 :])
    np.testing.assert_array_equal(
        read_image([path], DataSettings(planes=7))[1].pixels, flat[7:8]
    )
    with pytest.raises(FitsImageError, match="damaged"):
        read_image([path], DataSettings(planes=9))


def test_bytes_per_pixel_that_rice_does_not_know_are_refused(tmp_path):
    """The decoder would read beyond its memory and crash the process."""
    path = tmp_path / "a.fits"
    pixels = np.random.default_rng(1).integers(0, 99, (200, 200)).astype(np.int32)
    fits.CompImageHDU(pixels, compression_type="RICE_1").writeto(path)
    raw = path.read_bytes()
    at = raw.index(b"ZVAL2   =")
    for size in (8, 100_000):
        path.write_bytes(raw[:at] + b"ZVAL2   = %20d" % size + raw[at + 30 :])
        for reader in (describe_image, read_image):
            with pytest.raises(FitsImageError, match=f"RICE tiles is {size}; allowed"):
                reader([path], DataSettings())
