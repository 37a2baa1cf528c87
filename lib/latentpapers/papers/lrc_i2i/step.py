"""The paper's training step (`Step`): every row of `METHODS` but the compared method."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentpapers.losses import cycle as C
from latentpapers.losses import subspace
from latentpapers.nets import spectral as sn
from latentpapers.papers.lrc_i2i.training import TERMS, Training, checked, networks
from latentpapers.shapes import Bytes, Images, Scalar
from latentpapers.train.context import Context
from latentpapers.train.engine import Task, Update, stepping


def exchanged(x: Tensor) -> Tensor:
    """Neighbours 2i and 2i + 1 swapped: each image's partner. Pairs survive any even slice."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def sides(x: Tensor) -> list[Tensor]:
    """The first and the second images of all pairs: X and Y of the equations."""
    return [x[0::2], x[1::2]]


@dataclass(frozen=True)
class Passed:
    """The images of one step.

    Attributes:
        x, y: sources and their own reductions.
        translated: G(X, y) and G(Y, x), from one pass over all pairs.
        cycled: both translated back, from a second one.
    """

    x: Images
    y: Images
    translated: Images
    cycled: Images


class Step(Task):
    """LRC-I2I's training step: eqs 3 to 8. Singular vectors are buffers of the networks."""

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job = checked(job)
        self.nets = networks(job, seed)
        self.ema = {"generator": job.ema} if job.ema else {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99), the discriminator's rate `ratio` times the generator's."""
        rates = {"generator": self.job.lr, "discriminator": self.job.lr * self.job.ratio}
        how = stepping(self.job.precision)
        return {
            name: torch.optim.Adam(self.nets[name].parameters(), rate, betas=(0.0, 0.99), **how)
            for name, rate in rates.items()
        }

    def blocks(self) -> list[nn.Module]:
        """The residual blocks of both networks."""
        g, d = self.nets["generator"], self.nets["discriminator"]
        return [*g.encoder, *g.decoder, *d.trunk, *d.joined]

    def before_step(self, step: int, images: int) -> float:
        """Refreshes all spectral norms once; every pass of the step then sees the same ones."""
        for net in self.nets.values():
            sn.iterate(net)
        return 1.0

    # -- the images of a step ------------------------------------------------------------------

    def reduced(self, x: Images) -> Images:
        """DS(X) at the target's size."""
        return subspace.reduce(x, self.job.low, grey=self.job.grey)

    def passes(self, x: Images, ctx: Context) -> Passed:
        """The four passes of section 3.2 as two: both translations, then both cycles."""
        y = self.reduced(x)
        with sn.held(self.nets["generator"]) as g, ctx.autocast():
            translated = g(x, exchanged(y))
            return Passed(x, y, translated, g(translated, y))

    def seen(self, p: Passed) -> tuple[Images, Images]:
        """Eqs 5 and 6 of all generated images that take part (`terms`): images and differences."""
        job = self.job
        images, targets = p.translated, exchanged(p.y)
        if job.terms == "paper":
            images, targets = images[0::2], targets[0::2]
        if job.terms == "code":
            images, targets = torch.cat([images, p.cycled]), torch.cat([targets, p.y])
        return subspace.seen(
            images, targets, real=False, grey=job.grey, reading=job.reading, step=job.step or None,
            epsilon=job.epsilon, tolerance=job.tolerance,
        )  # fmt: skip

    def split(self, logits: Tensor) -> list[Tensor]:
        """Logits of `seen` images, one tensor a term of eq 7."""
        if self.job.terms == "paper":
            return [logits]
        return [side for part in logits.split(len(logits) * 2 // TERMS[self.job.terms])
                for side in sides(part)]  # fmt: skip

    # -- losses --------------------------------------------------------------------------------

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """The discriminator first, then the generator by the same images (lrc_i2i-e15)."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        passed = self.passes(x, ctx)
        images, differences = self.seen(passed)
        loss, terms = self.discriminator_loss(passed, images.detach(), differences.detach(), ctx)
        yield {"discriminator": loss}
        loss, more = self.generator_loss(passed, images, differences, ctx)
        ctx.log(**terms, **more)
        yield {"generator": loss}

    def discriminator_loss(
        self, p: Passed, images: Images, differences: Images, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 7 and the penalty, for the discriminator."""
        job, weight = self.job, self.penalised(ctx)
        with sn.held(self.nets["discriminator"]) as d:
            real, zeros = subspace.seen(p.x.detach(), p.y, real=True)
            if weight:
                real.requires_grad_()
                with ctx.uncompiled():
                    on_real = d(real, zeros)
            else:
                with ctx.autocast():
                    on_real = d(real, zeros)
            with ctx.autocast():
                on_fake = d(images, differences)
        # a real term beside every generated one (code); two in all as printed
        times = max(1, TERMS[job.terms] // 2)
        loss = C.discriminator_loss(sides(on_real) * times, self.split(on_fake))
        terms = {"real": on_real.mean(), "fake": on_fake.mean(), "discriminator": loss}
        if weight:
            terms["penalty"] = C.r1(on_real, real, reading=job.r1, images=ctx.batch // 2)
            # the code adds its penalty with every term of eq 7 (lrc_i2i-e9)
            weight *= TERMS[job.terms] if job.r1 == "code" else 1
            loss = loss + weight * terms["penalty"]
        return loss, terms

    def penalised(self, ctx: Context) -> float:
        """This step's weight of the penalty, gamma / 2 on average; 0: none is computed."""
        every = self.job.penalty_every
        return self.job.gamma / 2 * every if ctx.step % every == 0 else 0.0

    def generator_loss(
        self, p: Passed, images: Images, differences: Images, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 4 for the generator: the adversarial terms of eq 7 and the cycles of eq 8."""
        with sn.held(self.nets["discriminator"]) as d, ctx.autocast():
            logits = d(images, differences)
        adversarial = C.generator_loss(self.split(logits), saturating=self.job.saturating)
        (x, y), (x_back, y_back) = sides(p.x), sides(p.cycled)
        cycle = C.cycle_l1(x, x_back, y, y_back)
        error = (self.reduced(p.translated) - exchanged(p.y)).abs().mean()
        terms = {"adversarial": adversarial, "cycle": cycle, "error": error}
        return C.full_objective(adversarial, cycle, weight=self.job.cycle_weight), terms
