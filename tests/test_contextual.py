"""The contextual loss in blocks against eq 12 written out with the whole matrix."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentpapers.losses import contextual as module
from latentpapers.losses.contextual import contextual, contextual_per_image

EXACT = {"rtol": 1e-10, "atol": 0}  # float64: the two differ by the order of their sums alone


def written_out(output, target, h=0.5, eps=1e-5, raw=1.0):
    """Eq 12 with every matrix in memory, differentiated by autograd."""
    r = target.mean(dim=(0, 2, 3), keepdim=True)
    x, y = ((maps - r).flatten(2).transpose(1, 2) for maps in (output, target))
    x, y = (p * (p.square().sum(2, keepdim=True) + 1e-10).rsqrt() for p in (x, y))
    d = raw * (1 - x @ y.transpose(1, 2)).clamp_min(0)
    w = torch.exp((1 - d / (d.amin(2, keepdim=True) + eps)) / h)
    a = w / w.sum(2, keepdim=True)
    return -a.amax(1).mean(1).log().mean()


def maps(seed, *shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("cells", [1, 37, 2**19])
@pytest.mark.parametrize(("h", "distance"), [(0.5, "cosine"), (0.1, "cosine"), (0.5, "half")])
def test_eq_12(monkeypatch, cells, h, distance):
    monkeypatch.setattr(module, "_CELLS", cells)
    x, y = maps(0, 2, 8, 6, 5), maps(1, 2, 8, 7, 4)
    ours = contextual(x, y, bandwidth=h, distance=distance)
    plain = written_out(x, y, h, raw=0.5 if distance == "half" else 1.0)
    torch.testing.assert_close(ours, plain, **EXACT)
    for a, b in zip(torch.autograd.grad(ours, [x, y]), torch.autograd.grad(plain, [x, y])):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-14)  # sums of 1e2 terms near 0


@pytest.mark.parametrize("change", ["similarity", "rows", "columns", "h"])
def test_eq_12_control(change):
    """Eq 12 with a slip is told from ours: the printed similarity, rows and columns exchanged."""
    x, y = maps(0, 2, 8, 6, 5), maps(1, 2, 8, 6, 5)
    right = contextual(x, y).item()
    wrong = {
        "similarity": lambda: written_out(-x + 2 * y.mean((0, 2, 3), keepdim=True), y),
        "rows": lambda: written_out(y, x),
        "columns": lambda: written_out(x, y.flip(0)),
        "h": lambda: written_out(x, y, h=0.6),
    }[change]().item()
    assert abs(right - wrong) > 1e-3


def test_gradient_by_finite_differences():
    x, y = maps(2, 1, 3, 2, 3), maps(3, 1, 3, 3, 2)
    assert torch.autograd.gradcheck(contextual, (x, y))


def test_a_perfect_match_costs_nothing_and_chance_costs_log_points():
    y = maps(4, 2, 16, 8, 8).detach()
    # each point's only near neighbour is itself: A_ii = 1 up to e^(-0.1 / 1e-5)
    assert contextual(y, y).item() == pytest.approx(0, abs=1e-12)
    assert contextual(y.flip(3), y).item() == pytest.approx(0, abs=1e-12), "place does not matter"
    flat = torch.ones(2, 16, 8, 8, dtype=torch.float64)
    assert contextual(flat, flat).item() == pytest.approx(math.log(64), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["identical", "constant", "far", "huge", "tiny"])
def test_always_finite(case, dtype):
    x, y = maps(5, 1, 4, 8, 8, dtype=torch.float32), maps(6, 1, 4, 8, 8, dtype=torch.float32)
    x, y = {
        "identical": (y, y),
        "constant": (torch.ones_like(x), torch.ones_like(y)),
        "far": (x + 1e4, y),
        "huge": (x * 1e15, y),
        "tiny": (x * 1e-15, y * 1e-15),
    }[case]
    x = x.detach().to(dtype).requires_grad_()
    loss = contextual(x, y.detach().to(dtype))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("cells", [1, 2**19])
@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_not_hidden(monkeypatch, cells, spoilt, which):
    """Whatever block it lies in: in blocks of a row, later rows used to hide it."""
    monkeypatch.setattr(module, "_CELLS", cells)
    both = [maps(s, 2, 4, 5, 5).detach() for s in (11, 12)]
    assert contextual_per_image(*both).isfinite().all()  # control
    both[which][0, :, 0, 1] = spoilt
    found = contextual_per_image(*both)
    assert found[0].isnan()
    # the reference is the mean of the batch's targets, so there it spoils every image
    assert bool(found[1].isnan()) == (which == 1)


class Live(TorchDispatchMode):
    """Largest sum of the bytes of all storages made inside the block that are alive at once.

    It sees every operation, those of the backward pass too: on a CPU that runs in this thread.
    """

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def test_memory_is_a_third_of_the_whole_matrix_at_most():
    """The issue's bar, at its 1024 points and 256 channels and 4 of its 16 images."""
    x = maps(9, 4, 256, 32, 32, dtype=torch.float32)
    y, peaks = maps(10, 4, 256, 32, 32, dtype=torch.float32).detach(), []
    for loss in (contextual, written_out):
        with Live() as live:
            (grad,) = torch.autograd.grad(loss(x, y), x)
        assert live.peak > grad.nbytes  # control: the measure sees at least the result
        peaks.append(live.peak)
    assert peaks[0] <= peaks[1] / 3


def test_images_of_a_batch_share_nothing_but_the_reference():
    x, y = maps(7, 3, 8, 4, 4), maps(8, 3, 8, 4, 4)
    r = y.mean(dim=(0, 2, 3), keepdim=True)
    alone = [
        contextual_per_image(x[i : i + 1] - r, torch.cat([y[i : i + 1] - r, r - y[i : i + 1]], 3))
        for i in range(3)
    ]  # the mirrored copy brings the mean of each target to 0, which leaves r alone
    both = torch.cat([y - r, r - y], 3)
    torch.testing.assert_close(contextual_per_image(x - r, both), torch.cat(alone), **EXACT)


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((2, 3, 4), (2, 3, 4)), {}),
        (((2, 3, 4, 4), (2, 5, 4, 4)), {}),
        (((2, 3, 4, 4), (1, 3, 4, 4)), {}),
        (((2, 3, 4, 4), (2, 3, 4, 4)), {"bandwidth": 0.0}),
        (((2, 3, 4, 4), (2, 3, 4, 4)), {"epsilon": -1.0}),
        (((2, 3, 4, 4), (2, 3, 4, 4)), {"distance": "l2"}),
        (((2, 3, 0, 0), (2, 3, 4, 4)), {}),
        (((0, 3, 4, 4), (0, 3, 4, 4)), {}),
    ],
)
def test_bad_input(shapes, options):
    with pytest.raises(ValueError, match=r"contextual takes|must be positive"):
        contextual(*(torch.zeros(s) for s in shapes), **options)
