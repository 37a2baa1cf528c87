"""The training steps: a GAN's (`Adversarial`) and the inversion encoder's (`Inversion`)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpapers import models
from latentpapers.errors import UserError
from latentpapers.losses import wgan
from latentpapers.nets import pgan
from latentpapers.nets.equalized import pixel_norm
from latentpapers.papers.diamond.training import Training, networks, stages
from latentpapers.shapes import Bytes, Images, PerImage
from latentpapers.train.context import Context
from latentpapers.train.engine import Task, Update
from latentpapers.train.schedule import stage_at


def shrunk(x: Images, size: int, blend: float = 1.0) -> Images:
    """Real images at the generator's present size, in a fade as blurred as its output.

    Area averages; with `blend` < 1 a mixture with the image averaged once more and enlarged, as
    the generator mixes its two levels.

    Source: Karras et al. 2018, figure 2.
    """
    x = F.avg_pool2d(x, x.shape[-1] // size) if x.shape[-1] > size else x
    if blend >= 1.0 or size <= pgan.BOTTOM:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2).lerp(x, blend)


class Adversarial(Task):
    """Critic, then generator, each once a step: PGAN and WGAN-GP."""

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job, self.nets = job, networks(job, seed)
        self.ema = {"generator": job.average}
        self.stages = stages(job) if job.method == "pgan" else ()
        self.level, self.blend = 0, 1.0

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(
                net.parameters(), lr=self.job.lr, betas=self.job.betas, foreach=True
            )
            for name, net in self.nets.items()
        }

    def before_step(self, step: int, images: int) -> float:
        if self.stages:
            _, stage, self.blend = stage_at(images, self.stages)
            self.level = stage.level
            for net in self.nets.values():
                net.grow(stage.level, self.blend)
        return 1.0

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        real = self.real(batch)
        like = real.dtype
        with ctx.autocast():
            with torch.no_grad():
                fake = self.nets["generator"](ctx.noise(self.job.latent).to(like))
            scores, scores_fake = self.nets["critic"](real), self.nets["critic"](fake)
        steep = self.penalty(real, fake, ctx)
        drift = scores.square().mean()
        distance = wgan.critic_loss(scores, scores_fake)
        ctx.log(C_real=scores.mean(), C_fake=scores_fake.mean(), W=-distance, penalty=steep,
                drift=drift)  # fmt: skip
        yield {"critic": distance + self.job.penalty * steep + self.job.drift * drift}
        with ctx.autocast():
            fake = self.nets["generator"](ctx.noise(self.job.latent).to(like))
            loss = wgan.generator_loss(self.nets["critic"](fake))
        ctx.log(L_G=loss)
        yield {"generator": loss}

    def real(self, batch: Bytes) -> Images:
        """Training images in [-1, 1], at the size and sharpness of the present level."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1)
        if self.stages:
            x = shrunk(x, pgan.BOTTOM << (self.level - 1), self.blend)
        return x.contiguous(memory_format=torch.channels_last)

    def penalty(self, real: Images, fake: Images, ctx: Context) -> Tensor:
        """The gradient penalty of WGAN-GP, on a mixture of each real image with a fake one.

        The minibatch standard deviation makes an image's score depend on its neighbours; as in the
        public code, the slope is that of the sum of all scores.
        """
        critic: Callable[[Images], PerImage] = self.nets["critic"]
        if self.job.penalty_precision == "bf16":

            def critic(x: Images) -> PerImage:
                with torch.autocast(x.device.type, torch.bfloat16):
                    return self.nets["critic"](x)

        return wgan.gradient_penalty(critic, real, fake, ctx.uniform().to(real.dtype))

    def after_step(self, terms: dict[str, Tensor]) -> None:
        if self.stages and terms:
            like = next(iter(terms.values()))
            terms["pixels"] = like.new_tensor(float(pgan.BOTTOM << (self.level - 1)))
            terms["blend"] = like.new_tensor(self.blend)


class Inversion(Task):
    """The encoder that starts an inversion: image -> latent on the sphere.

    The generator is frozen, images are its own, so no data are needed: each is drawn from a fresh
    latent, and both the latent and the image are to come back. Section 4.1 names the procedure and
    gives no loss; this is our reading of it.
    """

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job, self.nets, self.ema = job, networks(job, seed), {}
        if not job.source:
            raise UserError(
                "an inversion encoder needs the generator it inverts: --set source=FILE, a "
                "checkpoint in the form of `latentpapers.models`."
            )
        path = Path(job.source)
        self.frozen = models.load(path if path.suffix else job.source)["generator"].to(device)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = self.nets["encoder"].parameters()
        return {"encoder": torch.optim.Adam(parameters, lr=self.job.lr, foreach=True)}

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        z = pixel_norm(ctx.noise(self.job.latent))
        with ctx.autocast():
            with torch.no_grad():
                x = self.frozen(z)
            found = self.nets["encoder"](x)
            again = self.frozen(found)
        terms = {"L_z": (found - z).square().mean(), "L_x": (again - x).abs().mean()}
        ctx.log(**terms)
        yield {"encoder": terms["L_z"] + terms["L_x"]}


def task(job: Training, seed: int, device: str | torch.device = "cpu") -> Any:
    """The engine's task of a run."""
    return (Inversion if job.method == "inverter" else Adversarial)(job, seed, device)
