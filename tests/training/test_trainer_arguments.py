"""Arguments of `ByolTrainer` that are used, and those that are refused."""

import pytest
import torch
from torch.utils.data import DataLoader
from training.test_trainer import Stop, auxiliary_task, images, make_trainer

from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel, MinMaxNorm
from astromorph.settings.loading import parse
from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.training.history import warn_of_collapse
from astromorph.training.trainer import ByolTrainer


def test_a_saved_state_includes_the_scaling_of_images(tmp_path):
    """A trainer that loads it gives the same embeddings of raw pixels and resumes."""
    raw = 1000 * images(12) - 50
    trainer = make_trainer()
    trainer.train_model(raw, None, epochs=1, batch_size=6, save_file=tmp_path / "a.pt")
    again = make_trainer(5)
    again.load(tmp_path / "a.pt")
    assert torch.equal(again(raw), trainer(raw))
    again.train_model(raw, None, epochs=2, batch_size=6, resume=True)
    other = make_trainer(normalization_function=lambda images: images / 1000)
    with pytest.raises(
        AstromorphError, match="normalization_function: found none, here"
    ):
        other.load(tmp_path / "a.pt")
    other.save(tmp_path / "b.pt")
    with pytest.raises(
        AstromorphError, match=r"normalization_function: found .*lambda"
    ):
        trainer.load(tmp_path / "b.pt")


def test_a_state_of_other_parts_is_refused(tmp_path):
    """The message names the part; the trainer does not change."""
    make_trainer().save(tmp_path / "adamw.pt")
    for options, message in (
        ({"optimizer": torch.optim.SGD}, "optimizer: found AdamW, here it is SGD"),
        ({"lr_scheduler": torch.optim.lr_scheduler.ConstantLR},
         "lr_scheduler: found none, here it is ConstantLR"),
        ({"auxiliary_task": auxiliary_task()},
         "auxiliary_task: found none, here it is AuxiliaryTask"),
    ):  # fmt: skip
        other = make_trainer(1, **options)
        before = other(images(2))
        with pytest.raises(AstromorphError, match=message):
            other.load(tmp_path / "adamw.pt")
        assert torch.equal(other(images(2)), before)


def test_only_the_same_training_is_resumed(tmp_path):
    """The number of images and, within an epoch, the batch size must be the same."""
    trainer = make_trainer()
    with pytest.raises(AstromorphError, match="found no training to resume; `load`"):
        trainer.train_model(images(12), epochs=2, resume=True)

    def stop(trainer: ByolTrainer) -> None:
        trainer.save(tmp_path / "state.pt")
        raise Stop

    with pytest.raises(Stop):
        trainer.train_model(images(12), epochs=2, batch_size=4, after_step=stop)
    again = make_trainer()
    again.load(tmp_path / "state.pt")
    with pytest.raises(AstromorphError, match=r"found 20 training images, .* with 12"):
        again.train_model(images(20), epochs=2, batch_size=4, resume=True)
    with pytest.raises(AstromorphError, match=r"batch_size: found 6 .* started with 4"):
        again.train_model(images(12), epochs=2, batch_size=6, resume=True)
    assert len(again.train_model(images(12), epochs=2, batch_size=4, resume=True)) == 2


def test_a_warning_is_logged_if_all_images_are_the_same(caplog):
    """The warning says that the embedding had collapsed before training."""
    history = make_trainer().train_model(torch.zeros(8, 1, 32, 32), None, 1, 4)
    assert history[0].effective_rank < 1.05
    assert "epoch 1: the embedding is collapsing" in caplog.text
    assert "check that the images differ" in caplog.text
    assert "use_momentum" not in caplog.text


def test_the_remedy_against_a_collapse_depends_on_use_momentum(caplog):
    """The setting is only mentioned if it is off."""
    warn_of_collapse((1.2, 0.02), (10.0, 0.5), 3, use_momentum=False)
    assert "or `use_momentum` to true" in caplog.text
    caplog.clear()
    warn_of_collapse((1.2, 0.02), (10.0, 0.5), 3, use_momentum=True)
    assert "use_momentum" not in caplog.text
    caplog.clear()
    warn_of_collapse((8.0, 0.4), (10.0, 0.5), 3)
    assert not caplog.text


def test_the_augmentation_of_a_given_byol_is_used():
    """Two different ones are refused."""
    sizes = []

    def augment(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images

    byol = BYOL(AstroMorphologyModel(1), augmentation_function=augment)
    trainer = ByolTrainer(byol, device="cpu")
    trainer.train_model(images(), None, epochs=1, batch_size=10)
    assert sizes == [10] * 4
    trainer(images(3), return_errors=True)
    assert sizes[4:] == [3, 3]
    assert byol.augmentation_function is augment
    with pytest.raises(ValueError, match="a BYOL that already has one"):
        ByolTrainer(byol, augmentation_function=lambda images: images)


def test_the_generator_of_a_given_augmentation_is_not_used():
    """The trainer draws with a copy of the augmentation."""
    generator = torch.Generator().manual_seed(3)
    augment = SkyAugmentation(generator=generator)
    before = generator.get_state()
    trainer = make_trainer(augmentation_function=augment)
    trainer.train_model(images(), None, epochs=1, batch_size=10)
    assert augment.generator is generator
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representation_size": 0}, "representation_size: found 0; allowed are int"),
        ({"representation_size": -3}, "representation_size: found -3"),
        ({"representation_size": "64"}, "representation_size: found '64'"),
        ({"representation_size": 64.0}, "representation_size: found 64.0"),
        ({"projection_size": 0}, "projection_size: found 0"),
        ({"projection_hidden_size": True}, "projection_hidden_size: found True"),
        ({"moving_average_decay": 2.0}, r"moving_average_decay: found 2\.0; .* 0, at"),
        ({"hidden_layer": True}, "hidden_layer: found True"),
        ({"features": 0}, "features: found 0"),
        ({"learning_rate": 0}, "learning_rate: found 0; allowed are numbers above 0"),
        ({"auxiliary_weight": -1}, "auxiliary_weight: found -1"),
        ({"seed": -1}, "seed: found -1"),
        ({"device": "gpu"}, "device: found 'gpu'; allowed on this machine are auto"),
        ({"device": "meta"}, "device: found 'meta'"),
        ({"loss_fn": torch.nn.MSELoss}, "loss_fn: found the class MSELoss; give an in"),
        ({"augmentation_function": SkyAugmentation}, "found the class SkyAugmentation"),
        ({"normalization_function": MinMaxNorm}, "found the class MinMaxNorm"),
        ({"optimizer": torch.optim.Adam([torch.ones(1)])},
         "optimizer: found an Adam object; give the class"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR(
            torch.optim.SGD([torch.ones(1)], lr=1), 1)},
         "lr_scheduler: found a StepLR object; give the class"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR,
          "schedule": lambda step, steps: 1.0}, "schedule: found one besides an lr_"),
        ({"schedule": 0.5}, "schedule: found 0.5; allowed are a function"),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(options, message):
    """The message says what was found and what is allowed."""
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_the_class_of_a_network_is_refused():
    """An object is needed."""
    with pytest.raises(ValueError, match=r"network: found the class Astro.*Model\(\)"):
        ByolTrainer(AstroMorphologyModel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: found 0; allowed are integers of at least 1"),
        ({"epochs": -1}, "epochs: found -1"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"batch_size": -1}, "batch_size: found -1"),
        ({"batch_size": 2.0}, "batch_size: found 2.0"),
    ],
)
def test_epochs_and_batch_size_out_of_range_are_refused(options, message):
    """The error is raised before training starts."""
    with pytest.raises(ValueError, match=message):
        make_trainer().train_model(images(4), **options)


def test_a_warning_is_logged_if_another_batch_size_is_used(caplog):
    """For batches of one image, and for the batches of a loader."""
    make_trainer().train_model(images(4), epochs=1, batch_size=1)
    assert "batch_size: found 1" in caplog.text
    caplog.clear()
    loader = DataLoader(images(8), batch_size=4)
    make_trainer().train_model(loader, epochs=1, batch_size=8)
    assert "batch size of the loader, 4, is not used: a step uses 8" in caplog.text


def test_a_wrong_number_of_features_is_refused():
    """It is compared with the output of the network, in embedding and loss."""
    torch.manual_seed(0)
    byol = BYOL(torch.nn.Sequential(AstroMorphologyModel(1)), features=77)
    for call in (lambda: byol(images(2)), lambda: byol.loss(images(2), images(2))):
        with pytest.raises(ValueError, match=r"shape \(\d, 128\), but 77 `features`"):
            call()


def test_reduce_lr_on_plateau_receives_the_loss():
    """It reduces the learning rate if the loss does not decrease."""
    trainer = make_trainer(
        learning_rate=1e-3, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau,
        lr_scheduler_options={"patience": 0, "factor": 0.1, "threshold": 9.0,
                              "threshold_mode": "abs"},
    )  # fmt: skip
    history = trainer.train_model(images(8), images(4), epochs=3, batch_size=4)
    assert [e.learning_rate for e in history] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_a_warning_is_logged_if_processes_train_separately(monkeypatch, caplog):
    """Each would write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    make_trainer()
    assert "2 processes were started, but each trains separately" in caplog.text
    assert "astromorph.distributed.process_group(2)" in caplog.text


def test_an_error_in_evaluation_restores_training_mode():
    """The training can continue after it."""
    trainer = make_trainer()
    with pytest.raises(ValueError, match="expects 1"):
        trainer(torch.rand(2, 3, 32, 32))
    assert trainer.byol.training


@pytest.mark.parametrize("images_epochs", [(12, 1), (60, 3), (12, None)])
def test_no_more_simulated_images_are_drawn_than_are_used(images_epochs):
    """Half of a batch is simulated; at most 12,000 images are drawn.

    None are drawn by default if the start weights know them.
    """
    number, epochs = images_epochs
    random = {"weights": "random"}
    settings = parse({"epochs": epochs, "network_settings": random}, "test")
    expected = number * (epochs or preset_epochs(number))
    assert simulated_images(settings, number) == expected < 12_000
    assert simulated_images(settings, 4_000 * (epochs or 1) + 8_000) == 12_000
    assert simulated_images(parse({"epochs": epochs}, "test"), number) == 0
    explicit = parse({"training_settings": {"simulated_images": 70}}, "test")
    assert simulated_images(explicit, 2) == 70
