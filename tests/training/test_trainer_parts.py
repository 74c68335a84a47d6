"""What `ByolTrainer` does with parts, numbers and states that do not fit."""

import pytest
import torch
from tests.test_trainer import Stop, images, lessons, trainer
from torch.utils.data import DataLoader
from torchvision.models import efficientnet_b0

from astromorph.byol.augment import SkyAugmentation
from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel, MinMaxNorm
from astromorph.settings.loading import parse
from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.training import trainer_steps
from astromorph.training.batch_norm import remeasure
from astromorph.training.history import warn_of_collapse
from astromorph.training.trainer import ByolTrainer


def test_a_saved_state_brings_its_normalization(tmp_path):
    """Raw pixels: the loaded trainer embeds as the one that was saved, and goes on."""
    raw = 1000 * images(12) - 50
    made = trainer()
    made.train_model(raw, None, epochs=1, batch_size=6, save_file=tmp_path / "a.pt")
    again = trainer(5)
    again.load(tmp_path / "a.pt")
    assert torch.equal(again(raw), made(raw))
    again.train_model(raw, None, epochs=2, batch_size=6, resume=True)
    other = trainer(normalization_function=lambda images: images / 1000)
    with pytest.raises(
        AstromorphError, match="normalization_function: found none, here"
    ):
        other.load(tmp_path / "a.pt")
    other.save(tmp_path / "b.pt")
    with pytest.raises(
        AstromorphError, match=r"normalization_function: found .*lambda"
    ):
        made.load(tmp_path / "b.pt")


def test_a_state_of_other_parts_is_refused(tmp_path):
    """Before anything is changed, with the part."""
    trainer().save(tmp_path / "adamw.pt")
    for options, message in (
        ({"optimizer": torch.optim.SGD}, "optimizer: found AdamW, here it is SGD"),
        ({"lr_scheduler": torch.optim.lr_scheduler.ConstantLR},
         "lr_scheduler: found none, here it is ConstantLR"),
        ({"teacher": lessons()}, "teacher: found none, here it is AuxiliaryTask"),
    ):  # fmt: skip
        other = trainer(1, **options)
        before = other(images(2))
        with pytest.raises(AstromorphError, match=message):
            other.load(tmp_path / "adamw.pt")
        assert torch.equal(other(images(2)), before)


def test_only_what_was_begun_goes_on(tmp_path):
    """With as many images, and in the middle of an epoch with the same batches."""
    made = trainer()
    with pytest.raises(AstromorphError, match="found nothing to go on from; `load`"):
        made.train_model(images(12), epochs=2, resume=True)

    def stop(made: ByolTrainer) -> None:
        made.save(tmp_path / "state.pt")
        raise Stop

    with pytest.raises(Stop):
        made.train_model(images(12), epochs=2, batch_size=4, after_step=stop)
    again = trainer()
    again.load(tmp_path / "state.pt")
    with pytest.raises(AstromorphError, match=r"found 20 training images, .* with 12"):
        again.train_model(images(20), epochs=2, batch_size=4, resume=True)
    with pytest.raises(AstromorphError, match=r"batch_size: found 6 .* begun with 4"):
        again.train_model(images(12), epochs=2, batch_size=6, resume=True)
    assert len(again.train_model(images(12), epochs=2, batch_size=4, resume=True)) == 2


def test_few_steps_make_no_deep_network_blind(caplog):
    """Batch norm's statistics are of the images, not of how they began.

    Embeddings in evaluation differ about as much as with the statistics of the batch.
    """
    torch.manual_seed(0)
    made = ByolTrainer(efficientnet_b0(), device="cpu", precision="float32")
    data = images(16).repeat(1, 3, 1, 1)
    history = made.train_model(data, None, epochs=2, batch_size=8)
    assert "collapses" not in caplog.text
    assert all(epoch.effective_rank > 3 for epoch in history)
    assert history[-1].spread > 0.1
    assert made(data).std(dim=0).mean() > 0.01


def test_measuring_batch_norm_anew_changes_nothing_else():
    """No weight, mode, momentum or random number; twice is the same."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(AstroMorphologyModel(1), torch.nn.Dropout(0.5))
    byol = BYOL(network)
    byol.predictor.eval()
    modes = [module.training for module in byol.modules()]
    weights = [p.clone() for p in byol.parameters()]
    drawn = torch.get_rng_state()
    states = []
    for _ in range(2):
        remeasure(byol, images().split(10))
        states.append({k: v.clone() for k, v in byol.named_buffers()})
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in byol.modules()] == modes
    pairs = zip(weights, byol.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    first = byol.encoder[0].body[0]
    mean = first[0](images()).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first[1].running_mean, mean, rtol=1e-3, atol=1e-4)
    assert first[1].momentum == 0.1


def test_later_the_statistics_are_those_of_the_steps(monkeypatch):
    """From a hundred steps on nothing is measured anew."""
    measured = []
    monkeypatch.setattr(
        trainer_steps, "settle", lambda *rest: measured.append(made.step)
    )
    monkeypatch.setattr(trainer_steps, "FEW_STEPS", 4)
    made = trainer()
    made.train_model(images(), None, epochs=4, batch_size=10)
    assert measured == [0, 2]


def test_images_that_are_all_the_same_are_told(caplog):
    """Also where they were before training."""
    history = trainer().train_model(torch.zeros(8, 1, 32, 32), None, 1, 4)
    assert history[0].effective_rank < 1.05
    assert "epoch 1: the embedding collapses" in caplog.text
    assert "look whether the images differ" in caplog.text
    assert "use_momentum" not in caplog.text


def test_the_remedy_against_a_collapse_is_none_that_is_taken(caplog):
    """`use_momentum` is named where it is off."""
    warn_of_collapse((1.2, 0.02), (10.0, 0.5), 3, use_momentum=False)
    assert "or `use_momentum` to true" in caplog.text
    caplog.clear()
    warn_of_collapse((1.2, 0.02), (10.0, 0.5), 3, use_momentum=True)
    assert "use_momentum" not in caplog.text
    caplog.clear()
    warn_of_collapse((8.0, 0.4), (10.0, 0.5), 3)
    assert not caplog.text


def test_views_are_those_of_the_byol_that_is_given():
    """Its own augmentation is used; two different ones are refused."""
    seen = []

    def mine(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images

    byol = BYOL(AstroMorphologyModel(1), augmentation_function=mine)
    made = ByolTrainer(byol, device="cpu")
    made.train_model(images(), None, epochs=1, batch_size=10)
    assert seen == [10] * 4
    made(images(3), return_errors=True)
    assert seen[4:] == [3, 3]
    assert byol.augmentation_function is mine
    with pytest.raises(ValueError, match="a BYOL that has one already"):
        ByolTrainer(byol, augmentation_function=lambda images: images)


def test_the_user_s_augmentation_keeps_its_random_numbers():
    """The trainer draws with a copy of it."""
    generator = torch.Generator().manual_seed(3)
    augment = SkyAugmentation(generator=generator)
    before = generator.get_state()
    made = trainer(augmentation_function=augment)
    made.train_model(images(), None, epochs=1, batch_size=10)
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
        ({"lesson_weight": -1}, "lesson_weight: found -1"),
        ({"seed": -1}, "seed: found -1"),
        ({"device": "gpu"}, "device: found 'gpu'; allowed on this machine are auto"),
        ({"device": "meta"}, "device: found 'meta'"),
        ({"loss_fn": torch.nn.MSELoss}, "loss_fn: found the class MSELoss; give an ob"),
        ({"augmentation_function": SkyAugmentation}, "found the class SkyAugmentation"),
        ({"normalization_function": MinMaxNorm}, "found the class MinMaxNorm"),
        ({"optimizer": torch.optim.Adam([torch.ones(1)])},
         "optimizer: found an Adam object; give the class"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR(
            torch.optim.SGD([torch.ones(1)], lr=1), 1)},
         "lr_scheduler: found a StepLR object; give the class"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR,
          "schedule": lambda step, steps: 1.0}, "schedule: found one beside an lr_sch"),
        ({"schedule": 0.5}, "schedule: found 0.5; allowed are a function"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(options, message):
    """With what was found and what is allowed; nothing is corrected silently."""
    with pytest.raises(ValueError, match=message):
        trainer(**options)


def test_a_network_s_class_is_refused():
    """An object of it is wanted."""
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
def test_no_training_with_numbers_that_make_none(options, message):
    """Before anything is trained."""
    with pytest.raises(ValueError, match=message):
        trainer().train_model(images(4), **options)


def test_what_is_taken_in_place_of_what_was_said_is_told(caplog):
    """Batches of one image, and those of a loader."""
    trainer().train_model(images(4), epochs=1, batch_size=1)
    assert "batch_size: 1 is too few" in caplog.text
    caplog.clear()
    loader = DataLoader(images(8), batch_size=4)
    trainer().train_model(loader, epochs=1, batch_size=8)
    assert "the loader's batches of 4 are not kept: a step takes 8" in caplog.text


def test_features_that_are_others_are_told():
    """A number of features that is believed is checked where they are made."""
    torch.manual_seed(0)
    byol = BYOL(torch.nn.Sequential(AstroMorphologyModel(1)), features=77)
    for use in (lambda: byol(images(2)), lambda: byol.loss(images(2), images(2))):
        with pytest.raises(ValueError, match=r"shape \(\d, 128\), but 77 `features`"):
            use()


def test_a_scheduler_that_looks_at_the_loss_is_told_it():
    """ReduceLROnPlateau waits for it to fall."""
    made = trainer(
        learning_rate=1e-3, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau,
        lr_scheduler_options={"patience": 0, "factor": 0.1, "threshold": 9.0,
                              "threshold_mode": "abs"},
    )  # fmt: skip
    history = made.train_model(images(8), images(4), epochs=3, batch_size=4)
    assert [e.learning_rate for e in history] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_processes_that_have_not_joined_are_told(monkeypatch, caplog):
    """Each would train alone and write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    trainer()
    assert "2 processes were started, but this one trains alone" in caplog.text
    assert "astromorph.distributed.process_group(2)" in caplog.text


def test_an_error_in_evaluation_leaves_the_mode():
    """Training can go on after it."""
    made = trainer()
    with pytest.raises(ValueError, match="takes 1"):
        made(torch.rand(2, 3, 32, 32))
    assert made.byol.training


@pytest.mark.parametrize("images_epochs", [(12, 1), (60, 3), (12, None)])
def test_no_more_lessons_are_drawn_than_there_are_places(images_epochs):
    """A batch has as many simulated images as others; 12,000 where there is room."""
    number, epochs = images_epochs
    settings = parse({"epochs": epochs}, "test")
    expected = number * (epochs or preset_epochs(number))
    assert simulated_images(settings, number) == expected < 12_000
    assert simulated_images(settings, 4_000 * (epochs or 1) + 8_000) == 12_000
    asked = parse({"training_settings": {"simulated_images": 70}}, "test")
    assert simulated_images(asked, 2) == 70
