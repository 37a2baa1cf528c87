"""Training steps whose blocks are compiled: the same gradients, one compilation for equal blocks.

What torch traces is run by autograd's own functions (`aot_eager`), in float64: this shows that
tracing changes nothing. Which kernels are then made of it is torch's business; `make benchmark`
on a GPU tells whether they pay.
"""

import importlib

import pytest
import torch
from step_bed import ROUNDING, context, doubled, gradients, parameters
from torch import nn

from latentpapers import data
from latentpapers.errors import UserError
from latentpapers.train import engine
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, Given, Task, fit


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """Module.compile without the making of kernels; what was compiled."""
    made, whole = [], nn.Module.compile

    def compile(self, **options):
        made.append(self)
        whole(self, backend="aot_eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile)
    torch.compiler.reset()
    return made


PATCH = {"size": 16, "images": 8, "steps": 2, "batch": 4, "data": "none"}
CASES = {
    "avae": ("avae", {**PATCH, "method": "avae", "width": 4, "latent": 4}),
    "lag": ("lag", {**PATCH, "method": "lag", "factor": 4, "width": 8, "floor": 4, "blocks": 2,
                    "noise": 3}),
    "lag grown": ("lag", {**PATCH, "method": "lag", "factor": 4, "width": 8, "floor": 4,
                          "blocks": 2, "noise": 3, "phase": 8}),
    "lag spectral": ("lag", {**PATCH, "method": "lag_relativistic", "factor": 4, "width": 8,
                             "floor": 4, "blocks": 2, "noise": 3}),
    "lrc": ("lrc_i2i", {**PATCH, "method": "lrc", "low": 4, "width": 4, "cap": 8,
                        "discriminator_width": 4, "gamma": 10.0}),
    "stargan_v2": ("lrc_i2i", {**PATCH, "method": "stargan_v2", "size": 32, "low": 4, "width": 4,
                               "cap": 8, "discriminator_width": 4, "style": 4, "hidden": 8}),
    "lsrgan": ("lsrgan", {"stage": "gan", "variant": "clsr", "data": "none", "steps": 2, "batch": 2,
                          "crop": 32, "blocks": 2, "width": 4, "growth": 2, "critic_width": 4,
                          "encoder_width": 4, "features": "random"}),
}  # fmt: skip


def bytes_of(n, side):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, side, side), generator=g, dtype=torch.uint8)


def task_of(name):
    """A case's task in float64, in a fade where networks grow."""
    room = importlib.import_module(f"latentpapers.papers.{CASES[name][0]}")
    options = CASES[name][1]
    if name == "lsrgan":
        defaults = room.PRESETS["quick"].training["proof_clsr"]
        known = {k: v for k, v in options.items() if hasattr(defaults, k)}
        job = type(defaults)(**{**vars(defaults), **known, "start": ""})
        hr = list(bytes_of(3, 48))
        bank = data.PairBank(hr, [room.reduced(x) for x in hr], 4, "cpu")
        features = room.feature_network(job, "cpu").double()
        return doubled(room.Step(job, 0, bank, features))
    job = room.Training(**options)
    make = getattr(room, "STEPS", {}).get(job.method, room.Step)
    return doubled(make(job, 0), images=12 if getattr(job, "phase", 0) else 0)


def gradients_of(task):
    """All gradients of a step with its penalty, an update after the other."""
    found, params = [], parameters(task)
    for update in task.updates(bytes_of(4, getattr(task.job, "size", 16)), context()):
        for name, loss in update.items():
            given = isinstance(loss, Given)
            found += loss.gradients if given else gradients(loss, params[name])
    return [g for g in found if g is not None]


def traced_gradients(task):
    with engine.compiled(task):
        return gradients_of(task)


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_step_has_the_plain_steps_gradients(name):
    plain, traced = gradients_of(task_of(name)), traced_gradients(task_of(name))
    assert len(plain) == len(traced) > 0
    for a, b in zip(traced, plain, strict=True):
        assert torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * float(b.abs().max() + 1e-3))


@pytest.mark.parametrize("name", ["lag", "lrc", "stargan_v2"])
def test_control_a_penalty_cannot_be_taken_through_compiled_blocks(name, monkeypatch):
    monkeypatch.setattr(Context, "uncompiled", Context.full_precision)
    with pytest.raises(RuntimeError):
        traced_gradients(task_of(name))


def test_equal_blocks_are_compiled_once():
    from torch._dynamo.utils import counters

    task, before = task_of("lsrgan"), counters["stats"]["unique_graphs"]
    traced_gradients(task)
    assert len(task.blocks()) == 2
    assert counters["stats"]["unique_graphs"] - before == 1
    assert not counters["graph_break"]


class Toy(Task):
    """Ten blocks of ten sizes: more than torch compiles of one function by itself."""

    def __init__(self):
        self.nets = {"net": nn.ModuleList(Block(n) for n in range(1, 11))}
        self.ema = {"net": 0.9}

    def blocks(self):
        return [*self.nets["net"]]

    def optimizers(self):
        return {"net": torch.optim.SGD(self.nets["net"].parameters(), lr=0.1)}

    def updates(self, batch, ctx):
        x = batch.float().flatten(1).mean(1, keepdim=True)
        loss = sum(block(x).square().mean() for block in self.nets["net"])
        ctx.log(loss=loss)
        yield {"net": loss}


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1e-3, 2e-3, n))

    def forward(self, x):
        return (x * self.weight).sin()


def test_the_engine_compiles_every_block_whatever_its_size(traced):
    runs = {}
    for on in (False, True):
        task = Toy()
        runs[on] = fit(task, bytes_of(4, 4), Fit(3, 4, log_every=1, compile=on), seed=0, config={})
    assert len(traced) == 10
    assert runs[True].column("loss") == pytest.approx(runs[False].column("loss"), rel=1e-6)
    assert runs[True].column("loss")[2] != runs[True].column("loss")[0]
    assert all(block._compiled_call_impl is None for block in traced)  # what was lent is taken back


def test_control_torchs_own_limit_is_below(traced, monkeypatch):
    from torch._dynamo.exc import FailOnRecompileLimitHit

    monkeypatch.setattr(engine, "COMPILATIONS", 8)
    with pytest.raises(FailOnRecompileLimitHit):
        fit(Toy(), bytes_of(4, 4), Fit(1, 4, compile=True), seed=0, config={})


def test_a_training_without_blocks_is_refused():
    task = Toy()
    task.blocks = lambda: []
    with pytest.raises(UserError, match="no compiled form"):
        fit(task, bytes_of(4, 4), Fit(1, 4, compile=True), seed=0, config={})
