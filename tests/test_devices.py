"""Device, precision and memory, and the transfer of batches to the device."""

import itertools
import json

import pytest
import torch

from astromorph import devices, distributed
from astromorph.datasets.tensor_datasets import CachedDataset, MappedDataset, gather
from astromorph.devices import choose_precision, fits_on_device, prefetch_to_device
from astromorph.errors import AstromorphError

CPU = torch.device("cpu")


def test_auto_precision_chooses_the_faster_type(monkeypatch):
    """Explicit names are used without a measurement."""
    for faster, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            devices, "bfloat16_is_faster", lambda device, faster=faster: faster
        )
        assert choose_precision("auto", CPU).dtype == dtype
        assert choose_precision("float32", CPU).dtype == torch.float32
        assert choose_precision("bfloat16", CPU).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="found 'half'; allowed are auto, float32"):
        choose_precision("half", CPU)


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"),
    [(1.3, 1.0, True), (1.2, 1.0, False), (1.0, 2.0, False)],
)
def test_the_fastest_repetitions_are_compared(monkeypatch, float32, bfloat16, faster):
    """bfloat16 must be 1.25 times as fast; the random state is unchanged."""
    durations = itertools.cycle([float32, bfloat16, 9 * float32, 5 * bfloat16])
    # Each repetition reads the clock twice.
    times = (t for seconds in durations for t in (0.0, seconds))
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(times))
    before = torch.random.get_rng_state()
    assert devices._measure_bfloat16(CPU) is faster
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_measurement_is_cached(tmp_path, monkeypatch):
    """A damaged cache or a folder that cannot be written is ignored."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "astromorph" / "bfloat16.json"
    for result in (True, False):
        cache.unlink(missing_ok=True)
        for later in (result, not result):
            monkeypatch.setattr(devices, "_measure_bfloat16", lambda _, r=later: r)
            assert devices.bfloat16_is_faster(CPU) is result
    (name,) = json.loads(cache.read_text())
    assert f"torch {torch.__version__}" in name
    cache.write_text("half a fi")
    assert devices.bfloat16_is_faster(CPU) is True
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert devices.bfloat16_is_faster(CPU) is True


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_batches_are_yielded_in_order(device):
    """On the CPU they are loaded directly, for other devices by a thread."""
    parts = [torch.tensor([k, k + 1]) for k in range(0, 20, 2)]
    load = torch.Tensor.float
    batches = list(prefetch_to_device(load, parts, torch.device(device)))
    assert [k.tolist() for k, _ in batches] == [part.tolist() for part in parts]
    assert all(images.device.type == device for _, images in batches)


def test_an_error_in_the_thread_is_raised():
    """An error while loading a batch reaches the caller."""

    def broken(indices):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(prefetch_to_device(broken, [torch.tensor([0])] * 4, torch.device("meta")))
    assert not fits_on_device(torch.ones(2), CPU)


def test_images_are_read_from_their_files_if_memory_is_too_small(prepared):
    """Batches equal those from memory, for any order of indices."""
    tensors = [prepared / f"0000{k}.pt" for k in range(2)]
    positions = {"00000": [3, 1, 15], "00001": [0, 11]}
    cached, ids, _ = gather(tensors, positions, 3)
    mapped, mapped_ids, _ = gather(tensors, positions, 3, max_bytes=0)
    assert isinstance(cached, CachedDataset)
    assert isinstance(mapped, MappedDataset)
    assert ids == mapped_ids
    assert (len(mapped), mapped.channels) == (len(cached), cached.channels) == (5, 3)
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 3, 1], [2]):
        chosen = torch.tensor(order)
        assert torch.equal(mapped.batch(chosen), cached.batch(chosen))
    assert torch.equal(mapped[3], cached[3])
    part = mapped.subset([4, 2])
    assert torch.equal(part.batch(torch.tensor([1])), cached.batch(torch.tensor([2])))
    assert [len(k) for k in mapped.batches(3)] == [len(k) for k in cached.batches(3)]


def test_available_memory_is_limited_by_control_groups(tmp_path, monkeypatch):
    """Parent groups count as well; groups without a limit are ignored."""
    free = devices.available_memory()
    assert 1e8 < free < 1e14
    group = tmp_path / "slurm" / "job"
    group.mkdir(parents=True)
    for folder, limit in ((group, "max"), (group.parent, "5000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("2000\n")
    (tmp_path / "own").write_text("0::/slurm/job\n")
    monkeypatch.setattr(devices, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(devices, "GROUP_OF_PROCESS", tmp_path / "own")
    assert devices.available_memory() == 3000
    (group.parent / "memory.current").write_text("6000\n")
    assert devices.available_memory() == 0
    monkeypatch.setattr(devices, "GROUP_OF_PROCESS", tmp_path / "none")
    assert devices.available_memory() > 1e8


def test_several_devices_without_gpus_share_the_cores(monkeypatch, caplog):
    """The log says so, since one process is as fast."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    distributed.check_devices(4)
    assert (
        "`training_settings.devices` is 4, but this machine has no GPU" in caplog.text
    )
    assert "4 processes share its" in caplog.text


def test_more_devices_than_gpus_are_refused(monkeypatch, caplog):
    """Before a process is started; as many as there are, or fewer, are allowed."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(AstromorphError, match="has 2 GPUs; set it to 2 or less"):
        distributed.launch(["absent_module"], devices=4, nodes=1)
    distributed.check_devices(2)
    assert not caplog.records
