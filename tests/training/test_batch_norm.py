"""Running statistics of batch norm after few steps."""

import torch
from torchvision.models import efficientnet_b0
from training.test_trainer import images, make_trainer

from astromorph.byol.byol import BYOL
from astromorph.models.encoders import AstroMorphologyModel
from astromorph.training import batch_norm
from astromorph.training.batch_norm import remeasure
from astromorph.training.trainer import ByolTrainer


def test_batch_norm_statistics_are_remeasured_after_few_steps(caplog):
    """A deep network then gives different embeddings for different images."""
    torch.manual_seed(0)
    trainer = ByolTrainer(efficientnet_b0(), device="cpu", precision="float32")
    data = images(16).repeat(1, 3, 1, 1)
    history = trainer.train_model(data, None, epochs=2, batch_size=8)
    assert "collapses" not in caplog.text
    assert all(epoch.effective_rank > 3 for epoch in history)
    assert history[-1].spread > 0.1
    assert trainer(data).std(dim=0).mean() > 0.01


def test_remeasuring_only_changes_the_statistics():
    """Weights, modes, momentum and random numbers do not change; it is repeatable."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(AstroMorphologyModel(1), torch.nn.Dropout(0.5))
    byol = BYOL(network)
    byol.predictor.eval()
    modes = [module.training for module in byol.modules()]
    weights = [p.clone() for p in byol.parameters()]
    random_state = torch.get_rng_state()
    states = []
    for _ in range(2):
        remeasure(byol, images().split(10))
        states.append({k: v.clone() for k, v in byol.named_buffers()})
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in byol.modules()] == modes
    pairs = zip(weights, byol.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    first = byol.encoder[0].body[0]
    mean = first[0](images()).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first[1].running_mean, mean, rtol=1e-3, atol=1e-4)
    assert first[1].momentum == 0.1


def test_after_many_steps_the_statistics_are_not_remeasured(monkeypatch):
    """The statistics of the training steps are kept."""
    steps = []
    monkeypatch.setattr(batch_norm, "remeasure", lambda *_: steps.append(trainer.step))
    monkeypatch.setattr(batch_norm, "FEW_STEPS", 4)
    trainer = make_trainer()
    trainer.train_model(images(), None, epochs=4, batch_size=10)
    assert steps == [0, 2]
