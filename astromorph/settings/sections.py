"""Every setting: its name, default, range and reason. Read once, never changed.

The same keys serve YAML (``config/config.yaml``) and TOML (``settings.toml``).
A step gets its own part only, as one canonical string (`part_of`), so that a
change reruns that step and what follows, nothing before it.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Index = Annotated[int, Field(ge=0, strict=True)]
Name = Annotated[str, Field(min_length=1)]
Channels = Annotated[tuple[Index, ...], Field(min_length=1)]
# Those of torchvision.models that take images of any size.
TORCHVISION = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "mnasnet0_5", "mnasnet0_75",
    "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf",
    "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf",
    "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101",
    "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d",
    "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1",
    "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11",
    "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "wide_resnet101_2", "wide_resnet50_2",
)  # fmt: skip
NETWORKS = ("n_layer_resnet", "amm", *TORCHVISION)
PLANES = r"^((sum|mean|max|channels)( \d*:\d*)?|\d*:\d*)$"


class Section(BaseModel):
    """A frozen group of settings that knows no other keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, values: Any) -> Any:
        """``data_settings:`` with nothing behind it is null in YAML."""
        if isinstance(values, Mapping):
            return {key: value for key, value in values.items() if value is not None}
        return values


class NetworkSettings(Section):
    """`network_settings`: the shape of the encoder."""

    last_layer: Literal["layer1", "layer2", "layer3", "layer4"] = "layer3"
    """The last block of ResNet-18 that `n_layer_resnet` keeps: 64, 128, 256 or
    512 features. Fewer layers train faster and suit small images; other networks
    have no such choice and ignore it."""

    stem: Literal["standard", "small"] = "standard"
    """What `n_layer_resnet` begins with. `small` keeps twice the resolution, for
    images of 32 pixels and fewer, at four times the work."""

    weights: Name | None = None
    """What training starts from: `random`; `sky`, weights that were trained on
    the simulated sky and come with the package; `torchvision`, its own, where
    this machine has them or can get them; or a file. Null takes `sky` where the
    network has them."""


class DataSettings(Section):
    """`data_settings`: how a FITS file becomes an image."""

    stacksize: Positive = 1
    """How often a single channel is repeated before the network sees it; 3
    suits networks made for RGB images."""

    hdu: Index | Name | tuple[Index | Name, ...] | None = None
    """The HDU to take, by number or by name (EXTNAME); of several, the first
    that a file has. Null takes the first that holds an image."""

    planes: Index | Annotated[str, Field(pattern=PLANES)] | Channels | None = None
    """What to take of a cube: the number of a plane; ``"sum"``, ``"mean"`` or
    ``"max"`` of all, or of a range as in ``"sum 10:20"``; ``"channels"``, each
    plane a channel, or the numbers of those that become channels. A range
    alone, as in ``"10:20"``, is its mean (in quotes: YAML reads a bare 10:20 to
    base 60). Null refuses cubes: which planes count, only the user knows."""

    header_columns: tuple[Name, ...] = ()
    """Further header keywords, each a column `header_KEYWORD` of the catalogue."""

    max_pixels: Positive = 2**28
    """A header that promises more pixels is refused before memory is taken:
    268 million float32 pixels are 1 GB."""


class ValidateSettings(Section):
    """`validate_settings`: when a list is too bad to go on with."""

    on_bad: Literal["skip", "fail"] = "skip"
    """`skip` leaves out the files that cannot be used, each with its reason;
    `fail` stops the run at any."""

    max_bad_fraction: Fraction = 0.5
    """With `skip`: the run stops where a larger share cannot be used. More than
    half means a wrong list or setting rather than bad luck."""

    on_duplicate: Literal["keep", "drop"] = "keep"
    """What to do with an image that the list has already: the same file, the
    same content, or the same position and band within the beam. Both report
    it; `drop` leaves the later one out."""


class PreprocessSettings(Section):
    """`preprocess_settings`: how an image becomes a tensor."""

    size: Annotated[int, Field(ge=16, le=1024)] | Literal["native"] = 64
    """Side of the cached square images in pixels; time and memory grow with its
    square. `native` keeps each image's own size and trains on batches of
    images of like size."""

    fit: Literal["pad", "crop", "squeeze"] = "pad"
    """How an oblong image becomes a square: `pad` with background, `crop` the
    longer side, both keeping the aspect, or `squeeze` both sides to `size`."""

    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each side that is kept, around the middle, before resizing."""

    crop: Literal["none", "source"] = "none"
    """`source` centres and zooms on the emission: the box around all pixels
    above `crop_sigma`. An embedding then cannot hold the angular size."""

    crop_sigma: Annotated[float, Field(ge=1, le=1000)] = 5.0
    """How many times the noise above the background emission begins; 5 leaves
    about no pixel of pure noise."""

    stretch: Literal["linear", "sqrt", "log", "asinh"] = "asinh"
    """The brightness scale. asinh is linear in the noise and logarithmic above
    it (Lupton, Gunn & Szalay 1999): faint and bright parts are both seen."""

    interval: Literal["noise", "minmax", "percentile", "zscale"] = "noise"
    """Which values become 0 and 1. `noise` works in units of the image's own
    noise: from 5 below the background to the maximum, and asinh and log bend
    at 3."""

    percentile: Annotated[float, Field(gt=50, le=100)] = 99.5
    """With `percentile`: this share of the pixels lies inside the interval."""

    stretch_scope: Literal["image", "dataset"] = "image"
    """`dataset` gives all images one scale, from the first 256 usable images of
    the list, so that brightness can be compared between them."""

    dtype: Literal["float16", "float32"] = "float16"
    """Of the cached images; half the space, and steps of 0.0005 near 1."""

    shard_size: Positive | None = None
    """Images per shard, the unit of work of one job. Null lets shards grow with
    the row number, from 1024 to 16384, so that both a laptop and a cluster get
    a sensible number of jobs and appended rows touch the last shard only."""


class SplitSettings(Section):
    """`split_settings`: which images are held out of training."""

    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the images that only measure the loss. Each object is drawn by
    itself, so that files added later move none of the others."""

    group_radius_arcsec: Annotated[float, Field(ge=0)] | None = None
    """Images whose centres are closer than this show one object and are never
    on both sides. Null takes half the image's shorter side: the centre of one
    lies in the other."""


class TrainingSettings(Section):
    """`training_settings`: how the network learns."""

    simulated_images: Annotated[int, Field(ge=0)] | None = None
    """How many images of the simulated sky join the training: half of every
    batch, with noise and beam like those of the data. Their shapes are known
    and teach the network. Null takes 12,000 for up to 50,000 images, which
    cannot teach a network alone, and none for more; and of 12,000 no more than
    images times epochs, as each batch has as many simulated images as others."""

    auxiliary_weight: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the auxiliary task, which predicts the kinds and shapes of the
    simulated images, relative to BYOL's own loss. With 0 they are images like all
    others."""

    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """`lars` is for batches of thousands; for it and `sgd` a `learning_rate` of
    0.06 to 0.4 times `batch_size` over 128 is usual."""

    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network's sums in training. `auto` measures once on a
    machine whether it is faster with bfloat16, and remembers it in the user's cache
    folder. Embeddings are always float32."""

    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    """How often training writes what it needs to go on after it was killed. It
    does so too when it is told to end (SIGTERM, SIGUSR1), and at its end; 0 only
    then. Changing it makes training run again, from its last checkpoint."""

    compile: bool = False
    """Let torch.compile make the network faster: minutes at the start, worth it
    in long trainings on GPUs."""

    devices: Positive = 1
    """GPUs, or processes on CPUs, that share the work of a node."""

    nodes: Positive = 1
    """Machines that share the work, started by srun."""


class ByolSettings(Section):
    """`byol_settings`: the heads on the encoder and the target network."""

    representation_size: Positive | None = None
    """Length of an embedding. Null takes the encoder's own number of features;
    any other number adds a linear layer behind the encoder."""

    projection_size: Positive | None = None
    """Length of the vectors that the loss compares; should be smaller than
    `representation_size`. Null takes half of it, at most 256, the paper's."""

    projection_hidden_size: Positive | None = None
    """Hidden width of projector and predictor; should be larger than
    `representation_size`. Null takes twice it, the paper's ratio."""

    use_momentum: bool = True
    """The target follows the online network as a moving average (BYOL); false
    lets both share their weights, behind a stop-gradient (SimSiam)."""

    moving_average_decay: Fraction = 0.99
    """Share of the target kept per step at the start; rises to 1 along a cosine.
    The paper: 0.97, 0.99, 0.996 for 40, 100 to 300 and 1000 epochs."""


class AugmentationSettings(Section):
    """`augmentation_settings`: what two views of one object may differ in."""

    rotation: bool = True
    """Turn each view by an angle of its own: the sky has no upright."""

    flip: bool = True
    """Mirror every second view: the sky has no handedness either."""

    scale: tuple[
        Annotated[float, Field(gt=0.1, le=1)], Annotated[float, Field(ge=1, lt=10)]
    ] = (0.6, 1.6)
    """Smallest and largest magnification. Too narrow a range lets the network
    solve its task by angular size alone."""

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Largest shift along each axis, as a fraction of the side."""

    gamma: Annotated[float, Field(ge=0, le=2)] = 0.4
    """Spread of the logarithm of the exponent that bends the brightness scale,
    so that brightness alone does not tell objects apart; 0 leaves it."""

    contrast: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Spread of the logarithm of a factor on all that stands out from the
    background: the same object, nearer or farther. 0 leaves it."""

    brightness: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest shift of the background level, where the image spans 0 to 1."""

    blur: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Largest width (standard deviation, in pixels) of a Gaussian beam that each
    view is smoothed with: another telescope. 0 leaves it."""

    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest standard deviation of the noise, where the image spans 0 to 1. A
    view gets the difference to the noise that it has, so that noise tells
    nothing about the object."""

    channel_gain: Annotated[float, Field(ge=0, le=3)] = 0.2
    """Spread of the logarithm of a factor on each channel: without it, images of
    several channels are told apart by colour alone. No effect on one channel."""

    erasing: Fraction = 0.0
    """Share of the views in which a random box, up to a third of the side, is
    set to the background."""


class InferenceSettings(Section):
    """`inference_settings`: how embeddings are computed."""

    symmetry: Literal["none", "d4"] = "d4"
    """`d4` averages the embedding over the 8 flips and right-angle rotations:
    the sky has no upright. `none` takes an eighth of the time."""

    batch_size: Positive = 256
    """Images in memory of the device at a time."""


class EvaluationSettings(Section):
    """`evaluation_settings`: how the embedding is held against its references."""

    images: Annotated[int, Field(ge=0)] = 2000
    """Most images that are looked at, drawn by lot; 0 leaves the step out. The
    untrained network has to embed them too."""

    label: Name = "label"
    """The column of the list with classes. They are used here alone."""


class AnalysisSettings(Section):
    """`analysis_settings`: clusters, map, neighbours and outliers."""

    whiten: Fraction = 0.5
    """How far the principal components of the embeddings, in which all distances
    are taken, are evened: each is divided by this power of its standard deviation.
    0 leaves them, 1 gives all variance 1. Half way neighbours share the kind most
    often."""

    components: Annotated[int, Field(ge=2, le=512)] = 64
    """Most principal components that are kept; one for every four images, at least
    eight."""

    cluster_by: Literal["kmeans", "hdbscan"] = "kmeans"
    """Which clusters the column `cluster`, the map and the galleries show; both
    are in the tables. `hdbscan` leaves images between clusters out of them (-1)."""

    clusters: Positive | None = None
    """How many clusters k-means makes. Null takes the number with the largest
    mean silhouette, from 2 to `max_clusters`."""

    max_clusters: Annotated[int, Field(ge=2, le=200)] = 20
    """The largest number that is tried where `clusters` is null; the root of the
    number of images where that is smaller."""

    min_cluster_size: Annotated[int, Field(ge=2)] | None = None
    """The smallest group that HDBSCAN calls a cluster. Null takes a hundredth of
    the images, from 5 to 100."""

    map: Literal["umap", "pca"] = "umap"
    """How the embeddings are laid out in two dimensions for `x` and `y`. `pca`
    takes the first two principal components: faster, keeps distances, shows
    less."""

    map_neighbours: Annotated[int, Field(ge=2, le=200)] = 15
    """UMAP's neighbours: few show small groups, many the large picture."""

    map_distance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """UMAP's least distance between points of the map."""

    map_sample: Annotated[int, Field(ge=100)] = 50_000
    """Most images that UMAP is fitted to; the others are placed among them."""

    neighbours: Annotated[int, Field(ge=1, le=100)] = 12
    """Nearest images that are listed for each."""


class ExportSettings(Section):
    """`export_settings`: what the tables and pages look like."""

    csv_separator: Literal["comma", "semicolon"] = "comma"
    """What separates the cells of `embeddings.csv`. Spreadsheets of countries that
    write 1,5 want a semicolon."""

    tables: tuple[Literal["parquet", "fits", "votable"], ...] = (
        "parquet", "fits", "votable",
    )  # fmt: skip
    """In which forms, beside CSV, the table is written. FITS and VOTable carry
    units and UCDs, and open in TOPCAT."""

    thumbnail_size: Annotated[int, Field(ge=8, le=256)] = 48
    """Side of a TensorBoard thumbnail in pixels; smaller where the sprite of
    all images would exceed TensorBoard's 8192 pixels."""

    map: bool = True
    """Write `map.html`, the map that opens in a browser."""

    map_thumbnail_size: Annotated[int, Field(ge=16, le=256)] = 64
    """Side in pixels of a picture in `map.html`."""

    map_one_file: Annotated[int, Field(ge=0)] = 20_000
    """Most listed images whose pictures are in `map.html` itself; those of a longer
    list lie beside it in `map_files`."""

    gallery: bool = True
    """Write contact sheets of clusters, outliers and neighbours."""

    gallery_images: Annotated[int, Field(ge=4, le=400)] = 24
    """Images on a contact sheet."""

    gallery_stretch: Literal["network", "linear", "sqrt", "asinh", "log", "zscale"] = (
        "network"
    )
    """How pixels become gray on the sheets: as the network saw them, or drawn from
    the files in a stretch of astropy.visualization (`zscale`: linear between its
    limits; the others between the 0.5 and 99.5 percentiles)."""


class Settings(Section):
    """All settings of a run."""

    datafile: str | None = None
    """The file list: a path a line, or CSV with a `path` column."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Start of every random number; the same seed gives the same result."""

    network_name: str = "n_layer_resnet"
    """The encoder: `n_layer_resnet`, ResNet-18 up to `last_layer`; `amm`, a light
    network; or a classification network of torchvision by its name there."""

    trained_network_name: str | None = None
    """A model file. The workflow and `astromorph infer` then use that model;
    `astromorph train` writes its model there. For the workflow, a name without
    braces."""

    epochs: Positive | None = None
    """How often training sees each image. Null lets the number of images decide:
    what counts is how many samples the network has seen."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per training step; batch norm needs at least 2, and works better
    with many."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Step size of the optimizer, after a warm-up and before it falls along a
    cosine. Null takes 0.001, and 0.0003 where training begins with given weights,
    which larger steps would undo."""

    exponential_lr: bool = False
    """Multiply the learning rate by `gamma` after each epoch, in place of the
    cosine."""

    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """The factor of `exponential_lr`."""

    core_limit: Annotated[int, Field(ge=0)] = 0
    """Most cores that a step may use; 0 for all that it is given."""

    export_to_csv: bool = True
    """Write `results/export/embeddings.csv`."""

    network_settings: NetworkSettings = Field(default_factory=NetworkSettings)
    data_settings: DataSettings = Field(default_factory=DataSettings)
    validate_settings: ValidateSettings = Field(default_factory=ValidateSettings)
    preprocess_settings: PreprocessSettings = Field(default_factory=PreprocessSettings)
    split_settings: SplitSettings = Field(default_factory=SplitSettings)
    training_settings: TrainingSettings = Field(default_factory=TrainingSettings)
    byol_settings: ByolSettings = Field(default_factory=ByolSettings)
    augmentation_settings: AugmentationSettings = Field(
        default_factory=AugmentationSettings
    )
    inference_settings: InferenceSettings = Field(default_factory=InferenceSettings)
    evaluation_settings: EvaluationSettings = Field(default_factory=EvaluationSettings)
    analysis_settings: AnalysisSettings = Field(default_factory=AnalysisSettings)
    export_settings: ExportSettings = Field(default_factory=ExportSettings)

    @field_validator("network_name")
    @classmethod
    def _known_network(cls, name: str) -> str:
        if name in NETWORKS:
            return name
        close = difflib.get_close_matches(name, NETWORKS, n=1)
        meant = f"did you mean {close[0]}? Allowed are" if close else "allowed are"
        raise ValueError(
            f"{meant} n_layer_resnet, amm, or one of torchvision's classification "
            "networks, such as resnet50 or efficientnet_b0"
        )
