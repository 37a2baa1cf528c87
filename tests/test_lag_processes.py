"""LAG's trainings in two processes: what a batch's own statistics decide is the whole batch's.

The relativistic average, the moments of z and SRGAN's batch normalisation each look at all images
of a step. One torchrun of two gloo processes trains every such method; float64, two steps.
"""

import sys
from pathlib import Path

import pytest
import torch

from latentpapers.papers.lag import Step, Training
from latentpapers.train.distributed import join, launch
from latentpapers.train.engine import Fit, fit

METHODS = ("lag_relativistic", "lag_encoder", "lag_embedding", "srgan")
TINY = {"data": "none", "size": 16, "images": 12, "factor": 4, "steps": 2, "batch": 4, "width": 8,
        "floor": 4, "blocks": 2, "noise": 3}  # fmt: skip


def weights(method, group=None, micro=1):
    """All numbers of a method's networks after its run; `micro` batches a step."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12, 3, 16, 16), generator=g, dtype=torch.uint8)
    step = Step(Training(method, **TINY), seed=0)
    for net in step.nets.values():
        net.double()
    fit(
        step,
        pixels,
        Fit(steps=2, batch=4, micro=micro, log_every=1),
        seed=0,
        config={},
        group=group,
    )
    parts = [v.double() for net in step.nets.values() for v in net.state_dict().values()]
    return torch.cat([p.flatten() for p in parts])


def rank(out):
    """What each process runs."""
    group = join()
    found = {method: weights(method, group) for method in METHODS}
    torch.save(found, Path(out) / f"rank{group.rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    script, here = out / "rank.py", str(Path(__file__).parent)
    script.write_text(
        f"import sys; sys.path.insert(0, {here!r}); import {__name__} as t; t.rank({str(out)!r})"
    )
    launch([str(script)], 2)
    return [torch.load(out / f"rank{r}.pt", weights_only=True) for r in (0, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one(method, ranks):
    one, two = (found[method] for found in ranks)
    assert torch.equal(one, two)
    # float64, halves summed in another order. SRGAN's convolutions before a normalisation have
    # biases that it takes away: their gradient is rounding, and Adam's step of that is anything
    # up to the rate. They are a few of its numbers; with each half's own moments it is most.
    off = (one - weights(method)).abs() > 1e-6
    assert float(off.double().mean()) < (0.05 if method == "srgan" else 1e-9)


def test_control_a_share_of_the_batch_has_other_statistics(monkeypatch):
    """Each half by itself, averaged by the engine, is what happened before they were gathered."""
    room = sys.modules[Step.__module__]
    for method in METHODS[:3]:
        whole = weights(method)
        monkeypatch.setattr(room, "gathered", lambda codes: codes[: len(codes) // 2])
        assert float((weights(method) - whole).abs().max()) > 1e-6, method
        monkeypatch.undo()


def test_control_srgans_moments_are_the_micro_batchs_own():
    """Batch normalisation over halves moves most of SRGAN's numbers: that would be seen above."""
    off = (weights("srgan", micro=2) - weights("srgan")).abs() > 1e-6
    assert float(off.double().mean()) > 0.5
