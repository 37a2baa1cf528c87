"""The compared method's training step: StarGAN v2 (`StyleStep`)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from latentpapers.losses import cycle as C
from latentpapers.losses import logistic
from latentpapers.losses import style as S
from latentpapers.nets import stargan_v2
from latentpapers.papers.lrc_i2i.step import Step
from latentpapers.papers.lrc_i2i.training import Training
from latentpapers.shapes import Bytes, Codes, Images, Scalar
from latentpapers.train.context import Context
from latentpapers.train.engine import Given, Update


def turned(x: Tensor, by: int) -> Tensor:
    """Each quartet of neighbours turned by `by` places: another image of the batch for each.

    Quartets survive any slice of a multiple of four, so shards see what the whole batch sees.
    """
    return x.unflatten(0, (-1, 4)).roll(-by, 1).flatten(0, 1)


class StyleStep(Step):
    """StarGAN v2's training step, reference-guided in one domain (Choi et al. 2020).

    Four updates as in the authors' code: the discriminator with styles of latent vectors, then of
    references; the generator, mapping network and style encoder with two latent vectors; the
    generator alone with two references. References are neighbours in the batch.
    """

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        super().__init__(job, seed, device)
        self.ema = dict.fromkeys(("generator", "mapping", "style"), job.ema) if job.ema else {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99) with weight decay; the mapping network learns 100 times more slowly."""
        job, nets = self.job, self.nets
        rates = {"generator": job.lr, "style": job.lr, "mapping": job.lr / 100}
        makers = [{"params": [*nets[n].parameters()], "lr": lr} for n, lr in rates.items()]
        judge = [{"params": [*nets["discriminator"].parameters()], "lr": job.lr * job.ratio}]
        return {
            name: torch.optim.Adam(groups, betas=(0.0, 0.99), weight_decay=job.decay, foreach=True)
            for name, groups in (("generator", makers), ("discriminator", judge))
        }

    def blocks(self) -> list[nn.Module]:
        """The residual blocks of all networks that have any."""
        nets = self.nets
        trunks = [*nets["style"].shared, *nets["discriminator"].main]
        residual = [m for m in trunks if isinstance(m, stargan_v2.ResBlock)]
        return [*nets["generator"].encode, *nets["generator"].decode, *residual]

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """The four updates; the last one's styles are constants, which changes no gradient of G."""
        like = next(self.nets["generator"].parameters())
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        latents = torch.cat([ctx.noise(self.job.latent) for _ in range(2)]).to(like)
        drawn, read = self.coded("mapping", latents, ctx), self.coded("style", x, ctx)
        for style in (drawn.chunk(2)[0], turned(read, 1)):
            loss, terms = self.critic_loss(x, style, ctx)
            ctx.log(**terms)
            yield {"discriminator": loss}
        styles = self.coded("mapping", latents, ctx, learn=True).chunk(2)
        own = self.coded("style", x, ctx, learn=True)
        loss, terms = self.maker_loss(x, styles, own, ctx)
        ctx.log(**terms)
        yield {"generator": loss}
        own = self.coded("style", x, ctx)  # those of the references too: they are the batch, turned
        loss, terms = self.maker_loss(x, (turned(own, 1), turned(own, 2)), own, ctx)
        ctx.log(**terms)
        yield {"generator": self.generator_alone(loss)}

    def coded(self, name: str, x: Tensor, ctx: Context, *, learn: bool = False) -> Codes:
        """F(z) or E(x); a constant unless it is to be learnt."""
        with torch.set_grad_enabled(learn), ctx.autocast():
            return self.nets[name](x)

    def critic_loss(
        self, x: Images, style: Codes, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Cross entropy of real and translated images, and the penalty on real ones."""
        judge, weight = self.nets["discriminator"], self.penalised(ctx)
        with torch.no_grad(), ctx.autocast():
            fake = self.nets["generator"](x, style)
        real = x.detach().requires_grad_(bool(weight))
        with ctx.uncompiled() if weight else ctx.autocast():
            on_real = judge(real)
        with ctx.autocast():
            on_fake = judge(fake)
        loss = logistic.discriminator_loss(on_real, on_fake)
        terms = {"real": on_real.mean(), "fake": on_fake.mean(), "discriminator": loss}
        if weight:
            terms["penalty"] = C.r1(on_real, real)
            loss = loss + weight * terms["penalty"]
        return loss, terms

    def maker_loss(
        self, x: Images, styles: tuple[Codes, ...], own: Codes, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 5 of StarGAN v2 for a pair of styles, and the sources' own ones."""
        make = self.nets["generator"]
        with ctx.autocast():
            fake = make(x, styles[0])
            logits = self.nets["discriminator"](fake)
            found = self.nets["style"](fake)
            back = make(fake, own)
            with torch.no_grad():
                other = make(x, styles[1])
        job = self.job
        weight = S.diversity_weight(
            ctx.step, job.diversity_steps or job.steps, start=job.diversity_weight
        )
        terms = {
            "adversarial": logistic.generator_loss(logits),
            "style": S.style_reconstruction(styles[0], found),
            "diversity": S.diversification(fake, other), "cycle": S.cycle(x, back),
        }  # fmt: skip
        return S.generator_objective(
            *terms.values(), style_weight=job.style_weight, diversity_weight=weight,
            cycle_weight=job.cycle_weight,
        ), terms  # fmt: skip

    def generator_alone(self, loss: Scalar) -> Given:
        """The gradient of the generator's own parameters; none for the networks beside it."""
        own = list(self.nets["generator"].parameters())
        rest = sum(1 for n in ("style", "mapping") for _ in self.nets[n].parameters())
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        return Given((*gradients, *[None] * rest))
