"""The training step of both stages (`Step`): one sum of terms with some left out."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from latentpapers import data
from latentpapers.losses import contextual as C
from latentpapers.losses import latent_regularisation as R
from latentpapers.losses import logistic, relativistic
from latentpapers.papers.lsrgan.training import VARIANTS, Training, networks
from latentpapers.precision import widened
from latentpapers.shapes import Bytes, Images
from latentpapers.train.context import Context
from latentpapers.train.engine import Task, Update, stepping
from latentpapers.train.schedule import halved_at


class Step(Task):
    """Both stages of section 4.1.

    The batch that the engine hands over says nothing: crops come from a bank of photographs of
    different sizes, sample by sample from (seed, step, number of the sample), so that processes
    and micro-batches that share a step see what one process would.
    """

    def __init__(
        self, job: Training, seed: int, bank: data.PairBank, features: nn.Module | None = None
    ) -> None:
        self.job, self.variant, self.seed = job, VARIANTS[job.variant], seed
        self.nets, self.bank, self.features = networks(job, seed), bank, features
        self.ema: dict[str, float] = {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0.9, 0.999), eps 1e-8, no decay (section 4.1)."""
        how = stepping(self.job.precision)
        return {
            name: torch.optim.Adam(net.parameters(), lr=self.job.lr, **how)
            for name, net in self.nets.items()
        }

    def before_step(self, step: int, images: int) -> float:
        """Section 4.1: halved at fixed steps."""
        return halved_at(step, self.job.halve_at)

    def blocks(self) -> list[nn.Module]:
        """The generator's trunk: nine tenths of a step's operations."""
        return [*self.nets["generator"].body]

    def crops(self, ctx: Context) -> tuple[Images, Images]:
        """This micro-batch's high and low resolution crops, in [0, 1]."""
        stream = (self.seed, ctx.step)
        samples = torch.arange(ctx.start, ctx.stop)
        index = self.bank.hr.choose(samples, stream)
        both = self.bank.crops(index, self.job.crop, stream, samples=samples, turn=True)
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        hr, lr = (x.to(like).div(255).contiguous(memory_format=torch.channels_last) for x in both)
        return hr, lr

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Stage 1: G and L apart. Stage 2: G, then D and L on the same output (lsrgan-e39)."""
        hr, lr = self.crops(ctx)
        if self.job.stage == "psnr":
            yield self.separate(hr, lr, ctx)
            return
        with ctx.autocast():
            fake = self.nets["generator"](lr)
        # in fp32, or the gradients of the four terms would be added in bf16 and mu's be rounded off
        fake = widened(fake)
        with ctx.autocast():
            losses, terms = self.generator_loss(fake, hr)
        yield {"generator": losses}
        with ctx.autocast():
            judges, more = self.judge_losses(fake.detach(), hr)
        ctx.log(**terms, **more)
        yield judges

    def separate(self, hr: Images, lr: Images, ctx: Context) -> Update:
        """Section 4.1: G maps low to high resolution and L high to low, both with L1."""
        with ctx.autocast():
            pixel = (self.nets["generator"](lr) - hr).abs().mean()
            code = (self.nets["encoder"](hr) - lr).abs().mean()
        ctx.log(pixel=pixel, code=code)
        return {"generator": pixel, "encoder": code}

    def generator_loss(self, fake: Images, hr: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """Eqs 1, 11, 13, 14: the sum of this variant's terms, and the terms."""
        job = self.job
        terms = {"percep": self.perceptual(fake, hr), "pixel": (fake - hr).abs().mean()}
        with torch.no_grad():
            real = self.nets["critic"](hr)
        judged = self.nets["critic"](fake)
        if job.adversary == "relativistic":
            terms["adversarial"] = relativistic.generator_loss(widened(real), widened(judged))
        else:
            terms["adversarial"] = logistic.generator_loss(widened(judged))
        if self.variant.latent:
            with torch.no_grad():
                code = self.nets["encoder"](hr)
            terms["latent"] = R.latent_distance(widened(code), widened(self.nets["encoder"](fake)))
        total = R.generator_objective(
            terms["percep"], terms["adversarial"], terms["pixel"], terms.get("latent", 0.0),
            lam=job.lam, eta=job.eta, mu=job.mu if self.variant.latent else 0.0,
        )  # fmt: skip
        return total, terms

    def perceptual(self, fake: Images, hr: Images) -> Tensor:
        """L1 between features, or the contextual loss; targets carry no gradient."""
        with torch.no_grad():
            target = self.features(hr)
        found = self.features(fake)
        if self.job.relu:
            found, target = found.relu(), target.relu()
        if self.variant.perceptual == "contextual":
            with torch.autocast(found.device.type, enabled=False):
                how = {"bandwidth": self.job.bandwidth, "distance": self.job.distance}
                return C.contextual(found, target, **how)
        return (widened(found) - widened(target)).abs().mean()

    def judge_losses(self, fake: Images, hr: Images) -> tuple[Update, dict[str, Tensor]]:
        """D's loss, and eq 10 for L."""
        real, judged = widened(self.nets["critic"](hr)), widened(self.nets["critic"](fake))
        kind = relativistic.critic_loss
        if self.job.adversary == "standard":
            kind = logistic.discriminator_loss
        losses: Update = {"critic": kind(real, judged)}
        if self.variant.latent:
            encoder = self.nets["encoder"]
            losses["encoder"] = R.latent_distance(widened(encoder(hr)), widened(encoder(fake)))
        gap = {"gap": real.mean() - judged.mean()}
        return losses, gap | {f"{name}_loss": value for name, value in losses.items()}
