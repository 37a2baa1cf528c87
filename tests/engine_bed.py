"""Toy GANs for the engine's tests, and the scripts that those tests run in other processes."""

import math
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from latentpapers.train.engine import Task
from latentpapers.train.schedule import Stage, stage_at

SIDE = 8


def images(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)


class Generator(nn.Module):
    """Two levels; the second is blended in by `share`, as in progressive growing."""

    def __init__(self, dropout):
        super().__init__()
        self.code = nn.Linear(4, 2 * 16)
        self.coarse = nn.Conv2d(2, 1, 3, padding=1)
        self.fine = nn.Conv2d(2, 1, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.level, self.share = 2, 1.0

    def forward(self, z):
        x = self.dropout(torch.tanh(self.code(z))).view(-1, 2, 4, 4)
        x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        coarse = self.coarse(x)
        if self.level == 1:
            return coarse
        return (1 - self.share) * coarse + self.share * self.fine(x)


def critic():
    """Smooth, without statistics over the batch, so that shards add up."""
    layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))


STAGES = (Stage(1, 24), Stage(2, 24, fade=True), Stage(2, 10**9))


class ToyGan(Task):
    """A Wasserstein GAN with the engine's freedoms as switches.

    Args:
        penalty: none | gp (WGAN-GP) | r1; each needs a second backward pass.
        critic_steps: updates of the critic before one of the generator.
        together: one group of both losses from one forward pass, instead of alternation.
        lazy: the penalty acts in every so many steps (and is logged only then).
        grow: progressive growing by `STAGES`, with a learning rate that warms up.
        at: `{step: function}` called before that step.
    """

    def __init__(
        self, *, seed=0, dtype=torch.float32, penalty="none", critic_steps=1, together=False,
        lazy=1, dropout=0.0, decay=0.0, sgd=0.0, grow=False, at=None,
    ):  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = {"g": Generator(dropout).to(dtype), "d": critic().to(dtype)}
        self.ema = {"g": decay} if decay else {}
        self.dtype, self.penalty, self.critic_steps = dtype, penalty, critic_steps
        self.together, self.lazy, self.sgd, self.grow = together, lazy, sgd, grow
        self.at, self.k, self.seen, self.path_of_g = at or {}, torch.tensor(0.0), [], []

    def optimizers(self):
        def make(net):
            if self.sgd:
                return torch.optim.SGD(net.parameters(), lr=self.sgd)
            return torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.9))

        return {name: make(net) for name, net in self.nets.items()}

    def before_step(self, step, seen):
        self.at.get(step, lambda: None)()
        if not self.grow:
            return 1.0
        _, stage, share = stage_at(seen, STAGES)
        self.nets["g"].level, self.nets["g"].share = stage.level, share
        return min(1.0, (step + 1) / 4)

    def updates(self, batch, ctx):
        self.seen.append(batch)
        x = batch.to(self.dtype) / 127.5 - 1
        g, d = self.nets["g"], self.nets["d"]
        if self.together:
            fake = g(self.noise(ctx))
            yield {
                "d": self.critic_loss(x, fake.detach(), ctx),
                "g": self.generator_loss(fake, ctx),
            }
            return
        for _ in range(self.critic_steps):
            with ctx.autocast():
                fake = g(self.noise(ctx)).detach().to(self.dtype)
            yield {"d": self.critic_loss(x, fake, ctx)}
        with ctx.autocast():
            fake = g(self.noise(ctx))
            loss = -d(fake).mean()
        ctx.log(L_g=loss)
        yield {"g": loss}

    def noise(self, ctx):
        return ctx.noise(4).to(self.dtype)

    def generator_loss(self, fake, ctx):
        loss = -self.nets["d"](fake).mean()
        ctx.log(L_g=loss)
        return loss

    def critic_loss(self, x, fake, ctx):
        d = self.nets["d"]
        loss = (1 + self.k) * d(fake).mean() - d(x).mean()
        ctx.log(L_d=loss)
        mix = ctx.uniform(1, 1, 1).to(self.dtype)
        if self.penalty != "none" and ctx.step % self.lazy == 0:
            with ctx.full_precision():
                penalty = self.second_order(x, fake, mix)
            ctx.log(penalty=penalty)
            loss = loss + 10 * penalty
        return loss

    def second_order(self, x, fake, mix):
        at = x if self.penalty == "r1" else mix * x + (1 - mix) * fake
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.nets["d"](at).sum(), at, create_graph=True)
        squared = slope.flatten(1).square().sum(1)
        return squared.mean() / 2 if self.penalty == "r1" else (squared.sqrt() - 1).square().mean()

    def after_step(self, terms):
        self.k = (self.k + 0.1 * terms["L_d"]).clamp(-0.5, 0.5)
        terms["k"] = self.k
        self.path_of_g.append([p.detach().clone() for p in self.nets["g"].parameters()])

    def state_dict(self):
        return {"k": self.k, "note": "any JSON"}

    def load_state_dict(self, state):
        self.k = state["k"]


def leaves(tree, path=""):
    """Every leaf of a checkpoint by its path, but the seconds."""
    if isinstance(tree, dict):
        return {k: v for key, node in tree.items() for k, v in leaves(node, f"{path}/{key}").items()
                if k != "/seconds"}  # fmt: skip
    if isinstance(tree, list):
        return {k: v for i, node in enumerate(tree) for k, v in leaves(node, f"{path}/{i}").items()}
    return {path: tree}


def differing(a, b):
    """Paths of the leaves that are not equal bit for bit."""
    a, b = leaves(a), leaves(b)
    return sorted(k for k in a.keys() | b.keys() if not same(a.get(k), b.get(k)))


def same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype is b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def largest(a, b):
    """The largest difference between tensors of two checkpoints' networks."""
    a, b = leaves(a["nets"]), leaves(b["nets"])
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


# --- what other processes run ----------------------------------------------------------------

KILLABLE = {"decay": 0.9, "penalty": "gp", "lazy": 2, "critic_steps": 2, "dropout": 0.3}

SHARED = {
    "gp": {"penalty": "gp", "critic_steps": 2},
    "r1": {"penalty": "r1", "lazy": 2, "decay": 0.9},
    "together": {"penalty": "gp", "together": True},
}
STEPS = 3


def run_killable(path, at=None, steps=14):
    from latentpapers.train import Fit, fit

    torch.set_num_threads(1)
    task = ToyGan(**KILLABLE, at=at)
    plan = Fit(steps=steps, batch=8, log_every=4, save_every=3, flip=True)
    return fit(task, images(), plan, seed=5, config={"toy": 1}, path=path)


def run_shared(folder, group=None, tag="one", micro=1):
    """Every row of `SHARED` in float64; SGD at rate 1 after one step shows the gradient itself."""
    from latentpapers.train import Fit, fit

    torch.set_num_threads(1)
    histories = {}
    for name, options in SHARED.items():
        for steps, rate in ((1, 1.0), (STEPS, 0.05)):
            task = ToyGan(dtype=torch.float64, sgd=rate, **options)
            plan = Fit(steps=steps, batch=8, log_every=1, micro=micro, flip=True)
            path = Path(folder) / f"{name}_{steps}_{tag}.safetensors"
            histories[name, steps] = fit(
                task, images(), plan, seed=1, config={}, path=path, group=group
            )
    return histories


def main(mode, where, *rest):
    import faulthandler

    faulthandler.dump_traceback_later(200, exit=True)  # a hang must not outlive the test
    if mode == "kill":
        step = int(rest[0])
        run_killable(Path(where), {step: lambda: os.kill(os.getpid(), signal.SIGKILL)})
    if mode == "ranks":
        several_ranks(where)


def several_ranks(folder):
    from dataclasses import dataclass

    from latentpapers.storage import write_json
    from latentpapers.train.distributed import Group, join

    @dataclass(frozen=True)
    class Silent(Group):
        def mean_(self, tensors):
            """The control: every rank keeps its own gradient."""

    group = join()
    run_shared(folder, group, "two")
    run_shared(folder, group, "two_by_two", micro=2)
    run_shared(folder, Silent(group.rank, group.world), "silent")
    first = torch.tensor([1.0, 2.0]) * (group.rank + 1)
    parts = [first.clone(), torch.full((2, 2), float(group.rank), dtype=torch.float64)]
    group.mean_(parts)
    facts = {
        "world": group.world,
        "mean": group.mean(first).tolist(),
        "first": first.tolist(),
        "parts": [p.tolist() for p in parts],
        "types": [str(p.dtype) for p in parts],
        "any": [group.any(group.rank == 1), group.any(False)],
        "diverged": diverged(group),
        "uneven": refused(group),
    }
    write_json(Path(folder) / f"rank{group.rank}.json", facts)


def diverged(group):
    """NaN in one rank's half of the batch stops both."""
    from latentpapers.errors import Diverged
    from latentpapers.train import Fit, fit

    task = ToyGan()
    plain = task.critic_loss
    task.critic_loss = lambda x, fake, ctx: plain(
        x * (math.nan if ctx.step == 2 and ctx.start else 1), fake, ctx
    )
    try:
        fit(task, images(), Fit(steps=4, batch=8, log_every=1), seed=1, config={}, group=group)
    except Diverged as error:
        return str(error)
    return ""


def refused(group):
    from latentpapers.errors import UserError
    from latentpapers.train import Fit, fit

    try:
        fit(ToyGan(), images(), Fit(steps=1, batch=7), seed=1, config={}, group=group)
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
