"""Whether a model is for images with as many channels as those of a run."""

from pathlib import Path

from astromorph.errors import AstromorphError
from astromorph.settings.sections import PreprocessSettings, Settings


def check_model_channels(settings: Settings, model_file: Path) -> None:
    """Raise an error if a model is for images with another number of channels.

    The step `infer` checks all images, but after they have been prepared. Here only the
    first usable image of the list is looked at.

    Parameters
    ----------
    settings : Settings
        Those of the run.
    model_file : Path
        The model that embeds its images.
    """
    from astromorph.byol.build import load_model, training_settings_of
    from astromorph.preprocessing.list_reference import find_reference

    _, model = load_model(model_file)
    datafile, data = str(settings.datafile), settings.data_settings
    try:
        channels = find_reference(datafile, data, PreprocessSettings()).channels
    except AstromorphError:
        return  # the step `validate` says of each file why it cannot be used
    if channels * training_settings_of(model).stacksize != model.in_channels:
        raise AstromorphError(
            f"{model_file}: this model expects images with {model.in_channels} "
            f"channels, but the first image of {datafile} has {channels}; train a "
            "model on these images, or set `data_settings` as for the model"
        )
