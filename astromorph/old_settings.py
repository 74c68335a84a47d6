"""Settings by the names and with the fields that version 0.1 had.

They serve code that was written for it. New code uses `astromorph.Settings`,
which reads the same files.
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field, FilePath


class FileSettings(BaseModel):
    """What is read.

    Attributes
    ----------
    datafile : str
        The file list, which must exist.
    data_settings : dict
        Keywords of `astromorph.FitsFilelistDataset`.
    """

    datafile: Annotated[str, Field(min_length=1)]
    data_settings: dict[str, Any] = {}

    def model_post_init(self, context: Any) -> None:
        """Refuse files that are not there."""
        Existing(file=self.datafile)  # type: ignore[arg-type]


class Existing(BaseModel):
    """A file that is there."""

    file: FilePath


class TrainingSettings(FileSettings):
    """How a network was trained.

    Attributes
    ----------
    epochs : int
        At least 1.
    network_name : str
        A key of `astromorph.models.names.DEFAULT_MODELS`.
    network_settings : dict
        Keywords of that network.
    byol_settings : dict
        Keywords of `astromorph.ByolTrainer`.
    core_limit : int
        Most cores; 0 for all.
    learning_rate, gamma : float
        The first step size, and its factor per epoch with `exponential_lr`.
    exponential_lr : bool
        Whether it falls by `gamma`.
    batch_size : int
        Images per step.
    """

    epochs: Annotated[int, Field(gt=0)] = 10
    network_name: str
    network_settings: dict[str, Any] = {}
    byol_settings: dict[str, Any] = {}
    core_limit: Annotated[int, Field(ge=0)] = 0
    learning_rate: float = 5e-6
    exponential_lr: bool = False
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.99
    batch_size: Annotated[int, Field(gt=0)] = 16


class InferenceSettings(FileSettings):
    """What was embedded.

    Attributes
    ----------
    trained_network_name : str
        The model file, which must exist.
    export_to_csv : bool
        Whether a table is written.
    """

    trained_network_name: str
    export_to_csv: bool = False

    def model_post_init(self, context: Any) -> None:
        """Refuse files that are not there."""
        super().model_post_init(context)
        Existing(file=self.trained_network_name)  # type: ignore[arg-type]
