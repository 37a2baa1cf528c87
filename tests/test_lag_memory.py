"""Memory of LAG's published run: every tensor of one step counted, none of them allocated.

The step runs on fake tensors (shapes without numbers), and a dispatch mode adds up the storages
that are alive. What it cannot see is the accelerator library's own workspace.
"""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from latentpapers.papers import lag
from latentpapers.train.context import Context

GB = 1e9
LIMIT = 16 * GB  # of the paper preset: 128 px, batch 16


class Live(TorchDispatchMode):
    """Bytes of the storages that operations made and something still holds; `peak` of them."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def _freed(self, key, size):
        self.known.discard(key)
        self.now -= size

    def _made(self, value):
        if not isinstance(value, torch.Tensor):
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key, size)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            self._made(value)
        return out


def peak_of(job):
    """(peak bytes of the gradients of one step, bytes of the networks' parameters)."""
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lag.training, "seeded", lambda make, g: make())  # numbers are not needed
        step = lag.Step(job, 0)
        step.before_step(0, 10**12)  # fully grown
        size = sum(p.numel() * 4 for net in step.nets.values() for p in net.parameters())
        batch = torch.zeros(job.batch, 3, job.size, job.size, dtype=torch.uint8)
        ctx = Context(0, 0, torch.device("cpu"), job.batch, 0, job.batch, job.precision)
        gc.collect()
        with Live() as live:
            (losses,) = list(step.updates(batch, ctx))
            params = list(step.nets["generator"].parameters())
            found = torch.autograd.grad(losses["generator"], params), losses["critic"].gradients
        assert all(g is not None for part in found for g in part)
    return live.peak, size


def whole(job):
    """One step with what stands beside it: parameters, two moments of Adam each, and the average
    of the generator (as large as the generator, so less than the parameters of both)."""
    peak, size = peak_of(job)
    return peak + 4 * size


def paper(**changes):
    return replace(lag.PRESETS["paper"].training["faces_x8"], **changes)


@pytest.mark.parametrize("name", ["faces_x8", "faces_x32", "table_lag_x4"])
def test_a_step_of_the_paper_preset_fits_into_16_gb(name, record_property):
    job = lag.PRESETS["paper"].training[name]
    assert (job.size, job.batch, job.precision) == (128, 16, "fp32")
    found = whole(job)
    record_property("gigabytes", round(found / GB, 2))
    assert found < LIMIT


def test_bf16_takes_less():
    assert whole(paper(precision="bf16")) < whole(paper())


def test_control_ten_times_the_batch_does_not_fit():
    assert whole(paper(batch=160)) > LIMIT


def test_the_count_of_a_known_graph():
    """Three maps of 1 MB kept for the backward pass, then freed: the peak is what is held."""
    with FakeTensorMode():
        x = torch.zeros(512, 512, requires_grad=True)  # 1 MiB
        with Live() as live:
            y = x.exp()  # kept: its own derivative
            z = y.exp()  # kept
            total = z.sum()
            held = live.now
            (grad,) = torch.autograd.grad(total, x)
            del y, z, total
            gc.collect()
            assert live.now < live.peak
    mib = 2**20
    assert held == pytest.approx(2 * mib, abs=1024)
    assert live.peak <= 5 * mib + 1024  # both, and the gradients on the way
    assert grad.shape == x.shape
