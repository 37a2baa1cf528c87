"""Every training of the `gpu` presets on a pretended GPU: nothing stays behind on the CPU.

A real GPU refuses a tensor of the CPU with an error; here that error comes without one. What is
computed is computed by the CPU, so the states must be equal bit for bit, in fp32 and in bf16. And
no step may wait for the GPU: what it needs is sent ahead, what it finds is fetched at history rows.
"""

import contextlib
import copy
import dataclasses
import importlib

import numpy as np
import pytest
import rehearsal
import torch
from pretend_gpu import Away, Waits, pretended
from torch import nn

from latentpapers import config, papers, weights
from latentpapers.train import checkpoint, engine
from latentpapers.train.runs import state_of


def rooms():
    return {name: importlib.import_module(f"latentpapers.papers.{name}") for name in papers.BUILT}


_PROOF = ("data", "crop", "batch", "width", "blocks", "growth", "critic_width", "encoder_width",
          "encoder", "features")  # fmt: skip


def jobs():
    """One small run for every method of every paper that the gpu preset trains."""
    for name, room in rooms().items():
        seen = set()
        for job in room.PRESETS["gpu"].training.values():
            kind = tuple(getattr(job, f, "") for f in ("method", "stage", "variant", "features"))
            if kind in seen:
                continue
            seen.add(kind)
            changes = rehearsal.small(config.as_dict(job)) | {"steps": 2}
            if name == "lsrgan":  # begins untrained: whoever tests need not have the weights
                proof = room.PRESETS["quick"].training["proof_clsr"]
                changes |= {k: getattr(proof, k) for k in _PROOF} | {"start": ""}
            else:
                grey = getattr(job, "channels", 3) == 1
                changes |= {"data": "digits" if grey else "drawn-faces", "images": 8, "batch": 4}
            yield pytest.param(
                name, dataclasses.replace(job, **changes), id="-".join((name, *kind))
            )


@contextlib.contextmanager
def steps_watched():
    """What makes the CPU wait inside training steps: it should queue the next one meanwhile."""
    waits, step = Waits(), engine._one_step

    def watched(run):
        with waits:
            step(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_one_step", watched)
        yield waits


def both(name, job, folder):
    """All weights after the run on the CPU, and after the run there that was stopped half-way."""
    room, here, there = rooms()[name], folder / "here.safetensors", folder / "there.safetensors"
    room.train(job, seed=0, path=here)
    with pretended(), steps_watched() as waits:
        room.train(dataclasses.replace(job, steps=1), seed=0, path=there, device="cuda")
        room.train(job, seed=0, path=there, device="cuda")
    # its rule of who sits out needs two numbers of the step before
    ruled = getattr(job, "method", "") == "vae_gan"
    assert waits.found == ["tolist of (2,)"] * 2 * ruled
    a, b = (checkpoint.networks(state_of(path)) for path in (here, there))
    assert a.keys() == b.keys()
    return [(a[net][k], b[net][k]) for net in a for k in a[net]]


def looker(name, layer):
    """In place of a feature network: whoever tests need not have its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()).requires_grad_(False)


@pytest.mark.parametrize(("name", "job"), [*jobs()])
def test_a_training_there_is_the_training_here(name, job, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "network", looker)
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")
    exact = dataclasses.replace(job, precision="fp32")
    (tmp_path / "own").mkdir()
    assert all(torch.equal(a, b) for a, b in both(name, exact, tmp_path))
    assert all(torch.equal(a, b) for a, b in both(name, job, tmp_path / "own"))


def test_control_a_tensor_left_behind_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")
    room, reduce = rooms()["lag"], rooms()["lag"].reduce
    job = dataclasses.replace(room.PRESETS["quick"].training["proof"], steps=1)
    monkeypatch.setattr(room.step, "reduce", lambda *how: reduce(*how).to("cpu"))
    room.train(job, seed=0, path=tmp_path / "here.safetensors")  # the CPU does not mind
    with pretended(), pytest.raises(RuntimeError, match="same device"):
        room.train(job, seed=0, path=tmp_path / "there.safetensors", device="cuda")


@pytest.fixture
def x():
    with pretended():
        yield torch.randn(2, 3, 8, 8, device="cuda")


def put(tensor, key, value):
    tensor[key] = value
    return tensor


def test_it_refuses_what_a_gpu_refuses(x):
    net, first = nn.Conv2d(3, 4, 3).to("cuda"), torch.tensor([0])
    for refused in (
        lambda: x + torch.ones(2, 3, 8, 8),
        lambda: net(torch.ones(2, 3, 8, 8)),
        lambda: torch.cat([x, torch.ones(1, 3, 8, 8)]),
        lambda: torch.ones(3)[torch.zeros(2, dtype=torch.long, device="cuda")],
        lambda: torch.randn(3, generator=torch.Generator("cuda")),
        lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda: torch.equal(x, x.cpu()),
        lambda: put(x, first, torch.ones(1, 3, 8, 8)),
        lambda: put(x, x > 0, torch.ones(int((x > 0).sum()))),
        lambda: put(torch.ones(2), first, x[0, 0, 0, :1]),
        lambda: put(torch.ones(2), first.to("cuda"), 1.0),
    ):
        with pytest.raises(RuntimeError, match="pretended"):
            refused()
    for refused in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="numpy"):
            refused()


def test_it_takes_what_a_gpu_takes(x):
    """Numbers, indices on the CPU, copies between devices; what comes of it is on the GPU."""
    made = [x * torch.tensor(2.0), x[torch.tensor([0])], torch.zeros(1).to(x), torch.zeros_like(x),
            x.flatten(1).max(1).values, torch.empty(2, device="cuda").copy_(torch.ones(2)),
            torch.randn(3, device="cuda", generator=torch.Generator("cuda")),
            put(x.clone(), 0, torch.ones(3, 8, 8)), put(x.clone(), x > 0, torch.tensor(1.0)),
            put(x.clone(), torch.tensor([0]), 1.0)]  # fmt: skip
    assert {str(t.device) for t in made} == {"cuda:0"}
    one = torch.tensor(1, device="cuda")
    here = [x.cpu(), x.to("cpu"), torch.zeros(2), x.detach().cpu().double(), torch.ones(3)[one],
            put(torch.ones(2, 8), 0, x[0, 0, 0])]  # fmt: skip
    assert {str(t.device) for t in here} == {"cpu"}
    assert not any(isinstance(t, Away) for t in here)
    x.cpu().zero_()
    assert float(x.abs().sum()) > 0  # a copy is another tensor
    assert np.asarray(x.cpu()).shape == (2, 3, 8, 8)


def test_it_notices_who_waits(x):
    with Waits() as waits:
        for hurried in (lambda: x + 1, lambda: x[0].sum(), lambda: torch.ones(2).sum().item(),
                        lambda: torch.ones(2).to("cuda", non_blocking=True),
                        lambda: torch.ones(2, device="cuda"), lambda: x.to(torch.double),
                        lambda: torch.where(x > 0, x, 0)):  # fmt: skip
            hurried()
        assert waits.found == []
        for slow in (
            x.sum().item,
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            x.cpu,
            lambda: x[x > 0],
            lambda: torch.ones(2).to("cuda"),
            x.nonzero,
            lambda: f"{x.sum():.1f}",
            lambda: x.to("cpu", non_blocking=True),
        ):
            seen = len(waits.found)
            slow()
            assert len(waits.found) > seen


def test_networks_and_gradients_live_there(x):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ELU()).to("cuda")
    everything = [*net.parameters(), *net.buffers(), *copy.deepcopy(net).parameters()]
    assert {str(t.device) for t in everything} == {"cuda:0"}
    assert all(isinstance(p, nn.Parameter) for p in net.parameters())
    loss = net(x).square().mean()
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    assert {str(g.device) for g in grads} == {"cuda:0"}
    again = torch.autograd.grad(sum(g.square().sum() for g in grads), net[0].weight)[0]
    assert again.device.type == "cuda"
    assert bool(again.isfinite().all())
    with torch.autocast("cuda", torch.bfloat16):
        assert net(x).dtype == torch.bfloat16


def test_nothing_of_it_is_left_behind():
    with pretended():
        assert torch.cuda.is_available()
    assert not isinstance(torch.zeros(2), Away)
    assert torch.cuda.is_available() == (torch.cuda.device_count() > 0)
    assert torch.Generator.__module__ != "pretend_gpu"
