"""The training loop."""

import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import (
    CachedDataset,
    NativeDataset,
    to_image_set,
)
from astromorph.errors import AstromorphError
from astromorph.models.encoders import AstroMorphologyModel, MinMaxNorm
from astromorph.settings.presets import preset_epochs
from astromorph.sky.training_set import DrawingRules, draw_labelled_images
from astromorph.training.auxiliary_task import AuxiliaryTask
from astromorph.training.trainer import ByolTrainer


def images(number: int = 20, seed: int = 5) -> torch.Tensor:
    return torch.rand(number, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def make_trainer(seed: int = 0, **options) -> ByolTrainer:
    torch.manual_seed(seed)
    options = {"seed": seed, "device": "cpu"} | options
    return ByolTrainer(AstroMorphologyModel(1), **options)


def test_one_seed_gives_one_model_bit_for_bit():
    """Weights and losses of two runs are equal with the same seed, else not."""
    runs = []
    for seed in (1, 1, 2):
        trainer = make_trainer(seed)
        history = trainer.train_model(images(), images(4), epochs=2, batch_size=8)
        runs.append((history, trainer.byol.state_dict()))
    (first, state), (second, again), (third, _) = runs
    assert first == second
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert first != third


def test_every_image_is_used_once_per_epoch_in_a_new_order():
    """Including those of the last, incomplete batch; no epoch repeats an order."""
    batches: list[torch.Tensor] = []

    def remember(batch: torch.Tensor) -> torch.Tensor:
        batches.append(batch.flatten(1)[:, 0].clone())
        return batch

    data = images(21)
    trainer = make_trainer(augmentation_function=remember)
    trainer.train_model(data, None, epochs=2, batch_size=8)
    orders = torch.cat(batches[::2]).chunk(2)
    expected = data.flatten(1)[:, 0].sort().values
    for order in orders:
        torch.testing.assert_close(order.sort().values, expected)
    assert not torch.equal(*orders)
    assert all(
        torch.equal(a, b) for a, b in zip(batches[::2], batches[1::2], strict=True)
    )


def test_the_loss_decreases():
    """Thirty steps on a few images make the views easier to predict."""
    history = make_trainer().train_model(images(), None, epochs=10, batch_size=10)
    assert history[-1].train_loss < 0.8 * history[0].train_loss


def test_the_target_follows_the_online_network():
    """It changes if the decay is below 1; the decay is 1 at the end of training."""
    trainer = make_trainer(moving_average_decay=0.5)
    before = [p.clone() for p in trainer.byol.target.parameters()]
    history = trainer.train_model(images(), None, epochs=2, batch_size=10)
    after = list(trainer.byol.target.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert history[-1].moving_average_decay == 1


def test_evaluation_does_not_change_the_model():
    """`test` and `forward` leave it in training mode and do not change buffers."""
    trainer = make_trainer()
    trainer.train_model(images(), images(4), epochs=1, batch_size=10)
    buffers = {k: v.clone() for k, v in trainer.byol.named_buffers()}
    first = trainer.test(CachedDataset(images(6)), 4)
    assert trainer.byol.training
    trainer.forward(images(3))
    assert trainer.byol.training
    assert all(torch.equal(v, buffers[k]) for k, v in trainer.byol.named_buffers())
    assert trainer.test(CachedDataset(images(6)), 4) == first


def test_training_does_not_change_its_input():
    """The images are the same afterwards."""
    data = images()
    copy = data.clone()
    make_trainer().train_model(data, data, epochs=1, batch_size=8)
    assert torch.equal(data, copy)


def test_the_given_optimizer_and_scheduler_are_used():
    """So are the options of the scheduler."""
    trainer = make_trainer(
        optimizer=torch.optim.SGD,
        learning_rate=0.1,
        lr_scheduler=torch.optim.lr_scheduler.ExponentialLR,
        lr_scheduler_options={"gamma": 0.5},
    )
    history = trainer.train_model(images(), None, epochs=3, batch_size=10)
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert [e.learning_rate for e in history] == pytest.approx([0.1, 0.05, 0.025])


def test_the_learning_rate_follows_the_schedule():
    """By default, warm-up and cosine; or any function of the step, or none."""
    rates = {}
    for name, schedule in (
        ("default", ...),
        ("half", lambda k, n: 0.5),
        ("none", None),
    ):
        options = {} if schedule is ... else {"schedule": schedule}
        trainer = make_trainer(learning_rate=0.01, **options)
        history = trainer.train_model(images(8), None, epochs=10, batch_size=4)
        rates[name] = [epoch.learning_rate for epoch in history]
    assert rates["half"] == pytest.approx([0.005] * 10)
    assert rates["none"] == pytest.approx([0.01] * 10)
    assert rates["default"][1] > 0.9 * 0.01
    assert rates["default"][-1] < 0.1 * 0.01


def test_a_warning_is_logged_when_the_embedding_collapses(caplog):
    """Weights that shrink to 0 make all embeddings the same."""
    trainer = make_trainer()
    history = trainer.train_model(images(), None, epochs=1, batch_size=8)
    assert "collapses" not in caplog.text
    assert history[-1].effective_rank > 1

    def shrink_weights(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for parameter in trainer.byol.encoder.parameters():
                parameter.mul_(1e-3)
        return images

    trainer.augment = shrink_weights
    history = trainer.train_model(images(), None, epochs=2, batch_size=8)
    assert "epoch 1: the embedding is collapsing" in caplog.text
    assert history[-1].spread < 0.01


def test_scalars_are_written(tmp_path):
    """TensorBoard finds the losses of each epoch in `log_dir`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = make_trainer().train_model(images(), images(4), 2, 10, log_dir=tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, values in {
        "loss/train": [e.train_loss for e in history],
        "loss/test": [e.test_loss for e in history],
    }.items():
        found = [e.value for e in events.Scalars(name)]
        assert found == pytest.approx(values, rel=1e-6)


def test_one_image_is_not_enough():
    """BYOL compares the images of a batch."""
    with pytest.raises(AstromorphError, match=r"found 1 images.*at least 2"):
        make_trainer().train_model(images(1), None, epochs=1)


def test_diverging_training_stops_with_a_remedy():
    """The message says that the loss is not finite."""
    trainer = make_trainer(learning_rate=1e30)
    with pytest.raises(AstromorphError, match=r"the loss is nan.*learning_rate"):
        trainer.train_model(images(), None, epochs=3, batch_size=10)


def test_embeddings_do_not_depend_on_the_batch():
    """An image has the same embedding alone and in a batch with others."""
    trainer = make_trainer()
    trainer.train_model(images(), None, epochs=1, batch_size=10)
    together, alone = trainer.forward(images(4)), trainer.forward(images(4)[2:3])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def auxiliary_task() -> AuxiliaryTask:
    torch.manual_seed(0)
    return AuxiliaryTask(draw_labelled_images(DrawingRules(seed=0, size=32), 24), 128)


def test_half_of_each_batch_is_simulated():
    """Each simulated image is used once before any is used again."""
    batches: list[torch.Tensor] = []

    def remember(batch: torch.Tensor) -> torch.Tensor:
        batches.append(batch.clone())
        return batch

    task = auxiliary_task()
    trainer = make_trainer(augmentation_function=remember, auxiliary_task=task)
    history = trainer.train_model(images(12), None, epochs=2, batch_size=6)
    assert all(len(batch) == 12 for batch in batches)
    known = torch.cat([batch[6:] for batch in batches[::2]]).flatten(1).sum(dim=1)
    every = task.images.batch(torch.arange(24)).flatten(1).sum(dim=1)
    torch.testing.assert_close(known.sort().values, every.sort().values)
    assert all(epoch.auxiliary_loss > 0 for epoch in history)
    assert history[1].auxiliary_loss != history[0].auxiliary_loss


def test_the_auxiliary_loss_decreases():
    """The head predicts kinds and shapes better with every epoch."""
    trainer = make_trainer(
        auxiliary_task=auxiliary_task(), augmentation_function=lambda images: images
    )
    history = trainer.train_model(images(24), None, epochs=15, batch_size=12)
    assert history[-1].auxiliary_loss < 0.7 * history[0].auxiliary_loss


def test_with_an_auxiliary_weight_of_0_the_head_learns_nothing():
    """Only the loss of BYOL is minimised."""
    task = auxiliary_task()
    before = task.head.weight.clone()
    trainer = make_trainer(
        auxiliary_task=task, auxiliary_weight=0.0, optimizer=torch.optim.SGD
    )
    trainer.train_model(images(12), None, epochs=1, batch_size=6)
    assert torch.equal(task.head.weight, before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_seed_gives_one_model_in_each_precision(precision):
    """Bit for bit, even with an auxiliary task; the weights remain float32."""
    states = []
    for _ in range(2):
        trainer = make_trainer(3, auxiliary_task=auxiliary_task(), precision=precision)
        trainer.train_model(images(), images(4), epochs=2, batch_size=8)
        states.append(trainer.byol.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(v.dtype != torch.bfloat16 for v in states[0].values())
    assert trainer.forward(images(2)).dtype == torch.float32


def test_simulated_images_are_resized_to_the_size_of_each_batch():
    """Images of different sizes train with an auxiliary task."""
    data = NativeDataset(
        [image[:, : 24 + k % 3 * 8] for k, image in enumerate(images())]
    )
    trainer = make_trainer(auxiliary_task=auxiliary_task())
    history = trainer.train_model(data, None, epochs=1, batch_size=8)
    assert history[0].auxiliary_loss > 0


@pytest.mark.slow
def test_compiled_training_equals_training():
    """`torch.compile` gives the same losses within rounding."""
    pytest.importorskip("torch._inductor")
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler; install g++")
    losses = []
    for compile in (False, True):
        torch.manual_seed(0)
        # Each part that is compiled takes a second.
        network = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )  # fmt: skip
        trainer = ByolTrainer(
            network, seed=0, device="cpu", precision="float32", compile=compile,
            augmentation_function=lambda images: images,
        )  # fmt: skip
        history = trainer.train_model(images(8), None, epochs=1, batch_size=4)
        losses.append(history[0].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_default_epochs_depend_on_the_number_of_images():
    """Small sets are used many times, large ones at least once."""
    epochs = [preset_epochs(n) for n in (2, 200, 1000, 10**4, 10**5, 10**7)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] <= 300
    assert epochs[2] == 30
    assert epochs[-1] == 1
    samples = [n * preset_epochs(n) for n in (1000, 4000, 16000)]
    assert samples == pytest.approx([30_000, 60_000, 120_000], rel=0.1)


class Stop(Exception):
    """Stops the training."""


@pytest.mark.parametrize("last", [1, 3, 4, 7])
def test_interrupted_training_equals_uninterrupted_training(last, tmp_path):
    """Bit for bit: within an epoch, at its end, and in the last epoch."""
    options = {
        "learning_rate": 0.01,
        "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR,
        "lr_scheduler_options": {"gamma": 0.5},
        "seed": 4,
    }
    uninterrupted = make_trainer(auxiliary_task=auxiliary_task(), **options)
    history = uninterrupted.train_model(images(), images(4), epochs=2, batch_size=5)

    def stop(trainer: ByolTrainer) -> None:
        trainer.save(tmp_path / "state.pt")
        if trainer.step == last:
            raise Stop

    interrupted = make_trainer(auxiliary_task=auxiliary_task(), **options)
    with pytest.raises(Stop):
        interrupted.train_model(images(), images(4), 2, 5, after_step=stop)
    resumed = make_trainer(auxiliary_task=auxiliary_task(), **options)
    resumed.load(tmp_path / "state.pt")
    assert resumed.step == last
    assert history == resumed.train_model(images(), images(4), 2, 5, resume=True)
    for name, value in uninterrupted.byol.state_dict().items():
        assert torch.equal(resumed.byol.state_dict()[name], value), name


def test_a_second_training_run_starts_from_the_current_weights():
    """Its schedule, order and history start again."""
    trainer = make_trainer()
    trainer.train_model(images(), None, epochs=1, batch_size=10)
    weights = [p.clone() for p in trainer.byol.encoder.parameters()]
    history = trainer.train_model(images(), None, epochs=2, batch_size=10)
    assert [epoch.epoch for epoch in history] == [1, 2]
    after = list(trainer.byol.encoder.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(weights, after, strict=True))


def test_a_saved_state_of_another_network_is_refused(tmp_path):
    """The message names the file and the mismatch."""
    make_trainer().save(tmp_path / "state.pt")
    other = make_trainer(representation_size=16)
    with pytest.raises(AstromorphError, match=r"state\.pt: it does not match this"):
        other.load(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"half")
    with pytest.raises(AstromorphError, match="not a readable"):
        other.load(tmp_path / "state.pt")


def test_images_of_all_forms_are_accepted():
    """Loaders, datasets with labels, lists, copies of an image, a missing axis."""
    data = images(6)
    pairs = TensorDataset(data, torch.arange(6))
    copies = [torch.stack([image, image.flip(2)]) for image in data]
    several = {
        "tensor": data,
        "pairs": pairs,
        "loader": DataLoader(pairs, batch_size=1, shuffle=True),
        "part": random_split(pairs, [6, 0])[0],
        "copies": copies,
        "planes": [image[0] for image in data],
        "loader of copies": DataLoader(copies, batch_size=1),
    }
    for name, given in several.items():
        found = to_image_set(given)
        values = found.batch(torch.arange(6)).flatten(1).sum(dim=1).sort().values
        expected = data.flatten(1).sum(dim=1).sort().values
        torch.testing.assert_close(values, expected, msg=name)
    assert to_image_set(None) is None
    assert to_image_set([]) is None
    sizes = to_image_set([torch.rand(1, 8, 9), torch.rand(1, 8, 8)])
    assert isinstance(sizes, NativeDataset)
    with pytest.raises(ValueError, match=r"image 0: found the shape \(3,\)"):
        to_image_set([torch.rand(3)])


def test_images_of_any_range_are_scaled_for_the_default_augmentation(caplog):
    """With a warning, in training and embedding; NaN pixels are allowed."""
    raw = 1000 * images(12) - 50
    raw[0, 0, :4] = torch.nan
    trainer = make_trainer()
    history = trainer.train_model(raw, None, epochs=1, batch_size=6)
    assert "not in the range from 0 to 1" in caplog.text
    assert history[0].train_loss < 8
    assert trainer(raw).isfinite().all()
    assert isinstance(trainer.byol.normalization_function, MinMaxNorm)
    assert raw[1].max() > 500


def test_options_of_a_byol_are_refused():
    """A BYOL already has its layer and its sizes."""
    byol = BYOL(AstroMorphologyModel(1))
    with pytest.raises(
        ValueError, match="representation_size: the network is already a BYOL"
    ):
        ByolTrainer(byol, representation_size=3)
    assert ByolTrainer(byol, device="cpu").byol is byol


def test_forward_returns_the_loss_with_return_errors():
    """It is the loss of two views of each image in evaluation mode."""
    trainer = make_trainer()
    loss = trainer(images(5), return_errors=True)
    assert loss.shape == ()
    assert 0 < loss < 8
    assert trainer.byol.training
