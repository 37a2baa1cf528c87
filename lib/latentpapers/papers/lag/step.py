"""The training step of every row of `METHODS` (`Step`)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from latentpapers import config
from latentpapers.errors import UserError
from latentpapers.losses import centre as Z
from latentpapers.losses import logistic, relativistic
from latentpapers.losses import wgan as W
from latentpapers.losses.low_resolution import difference_map, no_difference
from latentpapers.nets import lag
from latentpapers.papers.lag.training import (
    Training,
    low_side,
    method_of,
    networks,
    reduce,
    stages_of,
)
from latentpapers.shapes import Bytes, Images
from latentpapers.train.context import Context, Sampler
from latentpapers.train.distributed import gathered
from latentpapers.train.engine import Given, Task, Update, stepping
from latentpapers.train.schedule import stage_at

# What SRGAN's features are divided by in its loss: 1000 in the authors' code, whose network takes
# images on 0 to 255; torchvision's takes them divided by 255 * 0.226 on average
FEATURE_SCALE = {"vgg16hed": 1000.0, "vgg19": 17.4}
Losses = dict[str, Tensor]
SCALARS = {"positions": lag.position_sum, "value": lag.value}  # what the penalty differentiates


class Step(Task):
    """The training step of every row of `METHODS`. The stage of growing follows from the step."""

    def __init__(
        self, job: Training, seed: int, device: str | torch.device = "cpu",
        features: nn.Module | None = None,
    ) -> None:  # fmt: skip
        self.job, self.method = job, method_of(job)
        low_side(job)
        config.named("scalar", job.slope_of, SCALARS)
        if job.penalty_every < 1:
            raise UserError(f"penalty_every must be at least 1, not {job.penalty_every}.")
        self.nets = networks(job, seed)
        self.ema = {"generator": job.ema} if job.ema else {}
        self.stages = stages_of(job)
        self.level, self.fade = self.stages[0].level, 1.0
        self.features = features.to(device) if features is not None else None
        self.sampler = Sampler(job.images, job.batch, seed)  # tells which z_i a batch needs

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99), eps 1e-8; the baselines use their own papers' momentum."""
        ours = self.method.network == "lag"
        betas = (0.0, 0.99) if ours else (0.9, 0.999)
        how = stepping(self.job.precision)
        ratio = {"critic": self.job.critic_ratio, "latent": self.job.latent_ratio}
        parts = {"generator": ["generator"], "critic": ["critic"],
                 "latent": ["encoder", "embedding"]}  # fmt: skip
        return {
            name: torch.optim.Adam(
                [p for n in nets if n in self.nets for p in self.nets[n].parameters()],
                lr=self.job.lr * ratio.get(name, 1.0), betas=betas, **how,
            )
            for name, nets in parts.items()
            if any(n in self.nets for n in nets)
        }  # fmt: skip

    def blocks(self) -> list[nn.Module]:
        """The generator's blocks and stages and the critic's stages; the baselines have none."""
        if self.method.network != "lag":
            return []
        generator, critic = self.nets["generator"], self.nets["critic"]
        return [*generator.blocks, *generator.stages, *critic.trunk.stages]

    def before_step(self, step: int, images: int) -> float:
        """Sets the stage of growing. Each stage's Adam starts when its first gradient comes."""
        _, stage, self.fade = stage_at(images, self.stages)
        self.level = stage.level
        return 1.0

    # -- the images of a step ------------------------------------------------------------------

    def reduced(self, x: Images) -> Images:
        """H(x) in full precision."""
        return reduce(x, self.job.factor, self.job.kernel, self.job.shifted)

    def real(self, x: Images) -> Images:
        """The real image with the details of the present stage alone, at the full size."""
        times = self.job.factor >> self.level
        small = lag.box_down(x, times)
        small = lag.blended(small, self.fade) if self.fade < 1 else small
        return lag.nearest_up(small, times)

    def fake(self, y: Images, z: Tensor, ctx: Context) -> Images:
        """G(y, z) of the present stage, enlarged to the full size."""
        with ctx.autocast():
            image = self.nets["generator"](y, z, level=self.level, fade=self.fade)
        return lag.nearest_up(image, self.job.factor >> self.level)

    def code(self, x: Images, difference: Images, ctx: Context | None = None) -> Tensor:
        """P(x, d) of the present stage; in full precision without a context."""
        if ctx is None:
            return self.nets["critic"](x, difference, level=self.level, fade=self.fade)
        with ctx.autocast():
            return self.nets["critic"](x, difference, level=self.level, fade=self.fade)

    def difference(self, y: Images, x: Images) -> Images:
        """The difference map of a generated (or mixed) image."""
        step = self.job.step or None
        return difference_map(y, self.reduced(x), reading=self.job.reading, step=step)

    # -- losses --------------------------------------------------------------------------------

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Joint: both gradients from one forward pass. Alternate: critic first."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        y = self.reduced(x)
        if self.method.network != "lag":
            yield from self.baseline(x, y, ctx)
            return
        noise = ctx.noise(self.job.noise, *y.shape[2:]).to(like)
        if self.method.adversary == "wgan" and self.job.updates == "joint":
            yield self.shared(x, y, noise, ctx)
            return
        if self.job.updates == "joint":
            losses, terms = self.objectives(x, y, noise, ctx)
            ctx.log(**terms)
            yield losses
            return
        losses, terms = self.objectives(x, y, noise, ctx)
        yield {"critic": losses["critic"]}
        mine, again = self.objectives(x, y, noise, ctx, penalty=False)
        ctx.log(**{**terms, **{k: v for k, v in again.items() if k != "penalty"}})
        yield {name: loss for name, loss in mine.items() if name != "critic"}

    def latent(self, x: Images, y: Images, ctx: Context) -> Tensor:
        """What takes the place of z = 0 in the centre loss."""
        if self.method.latent == "encoder":
            with ctx.autocast():
                return self.nets["encoder"](x)
        if self.method.latent == "embedding":
            which = self.sampler.indices(ctx.step)[ctx.start : ctx.stop]
            return self.nets["embedding"](which.to(x.device, non_blocking=True))
        return self.nets["generator"].zeros(y)

    def pair(
        self, x: Images, y: Images, noise: Tensor, ctx: Context
    ) -> tuple[Images, Images, Tensor]:
        """G(y, z), G(y, centre) from one pass of the generator, and the centre's latent."""
        latent = self.latent(x, y, ctx)
        if not self.method.centre:
            return (image := self.fake(y, noise, ctx)), image, latent
        both = self.fake(torch.cat([y, y]), torch.cat([noise, latent]), ctx)
        random, central = both.chunk(2)
        return random, central, latent

    def penalised(self, ctx: Context) -> float:
        """This step's weight of the gradient penalty; 0: none is computed."""
        every = self.job.penalty_every
        return self.job.penalty_weight * every if ctx.step % every == 0 else 0.0

    def penalty(self, real: Images, fake: Images, y: Images, ctx: Context) -> Tensor:
        """Eq 5 for LAG's critic: the slope of one scalar an image, through both inputs."""
        scalar = SCALARS[self.job.slope_of]

        def critic(mixed: Images) -> Tensor:
            return scalar(self.code(mixed, self.difference(y, mixed)))

        rho = ctx.uniform().to(real)
        job = self.job
        with ctx.uncompiled():
            return W.gradient_penalty(critic, real, fake, rho, norm=job.norm, target=job.target)

    def shared(self, x: Images, y: Images, noise: Tensor, ctx: Context) -> Update:
        """Eqs 7 and 8 with the critic's pass over G(y, z) differentiated once.

        It serves the critic's parameters (weight 1) and the image (weight -1) together; a test
        holds the result equal to plain autograd of `objectives`.
        """
        job, params = self.job, list(self.nets["critic"].parameters())
        real = self.real(x)
        random, central, latent = self.pair(x, y, noise, ctx)
        p_real = self.code(real, no_difference(y), ctx)
        leaf, zero = random.detach().requires_grad_(), y.new_zeros(())
        p_fake = self.code(leaf, self.difference(y, leaf), ctx)
        c_real, c_fake = lag.value(p_real), lag.value(p_fake)
        by_real = _gradients(ctx.scaled(W.generator_loss(c_real)), params)
        *by_fake, pull = _gradients(ctx.scaled(c_fake.mean()), [*params, leaf])
        losses: Update = {"generator": -(random * ctx.unscaled(pull)).sum()}
        terms = {"real": c_real.mean(), "fake": c_fake.mean(), "centre": zero}
        if self.method.centre:
            middle = central.detach().requires_grad_()
            p_centre = self.code(middle, self.difference(y, middle), ctx)
            terms["centre"] = Z.centre_loss(p_real.detach(), p_centre, reading=job.centre_reading)
            (pull,) = _gradients(ctx.scaled(terms["centre"]), [middle])
            toward = job.centre_weight * (central * ctx.unscaled(pull)).sum()
            losses["generator"] = losses["generator"] + toward
            self.add_latent(losses, terms, toward, latent)
        losses["generator"] = self.with_pixels(losses["generator"], terms, central, real)
        critic = [_sum(a, b) for a, b in zip(by_real, by_fake, strict=True)]
        weight = self.penalised(ctx)
        if weight:
            terms["penalty"] = self.penalty(real, random, y, ctx)
            slopes = _gradients(ctx.scaled(terms["penalty"]), params)
            critic = [_sum(a, b, weight) for a, b in zip(critic, slopes, strict=True)]
        ctx.log(**terms)
        return losses | {"critic": Given(tuple(critic), scaled=True)}

    def add_latent(self, losses: Update, terms: Losses, toward: Tensor, latent: Tensor) -> None:
        """The extensions' own update: closeness of the centre, and z ~ N(0, 1) in the batch."""
        if self.method.latent == "zero":
            return
        terms["prior"] = Z.prior_moments(gathered(latent))
        losses["latent"] = toward + self.job.prior_weight * terms["prior"]

    def with_pixels(self, loss: Tensor, terms: Losses, central: Images, real: Images) -> Tensor:
        """The generator's loss, with the ablation's pixel loss where it has a weight."""
        if not self.job.pixel_weight:
            return loss
        terms["pixels"] = (central - real).abs().mean()
        return loss + self.job.pixel_weight * terms["pixels"]

    def objectives(
        self, x: Images, y: Images, noise: Tensor, ctx: Context, *, penalty: bool = True
    ) -> tuple[Losses, Losses]:
        """Each network's loss as printed, to be differentiated by its own parameters alone.

        Returns:
            The losses by update, and the terms to log.
        """
        job, real = self.job, self.real(x)
        random, central, latent = self.pair(x, y, noise, ctx)
        p_real = self.code(real, no_difference(y), ctx)
        p_fake = self.code(random, self.difference(y, random), ctx)
        adversarial, critic, terms = self.adversary(p_real, p_fake)
        terms["centre"] = y.new_zeros(())
        if self.method.centre:
            p_centre = self.code(central, self.difference(y, central), ctx)
            terms["centre"] = Z.centre_loss(p_real.detach(), p_centre, reading=job.centre_reading)
        weight = self.penalised(ctx) if penalty and self.method.adversary == "wgan" else 0.0
        if weight:
            terms["penalty"] = self.penalty(real, random, y, ctx)
            critic = critic + weight * terms["penalty"]
        loss = Z.generator_objective(adversarial, terms["centre"], weight=job.centre_weight)
        loss = self.with_pixels(loss, terms, central, real)
        losses: Losses = {"generator": loss, "critic": critic}
        self.add_latent(losses, terms, job.centre_weight * terms["centre"], latent)
        return losses, terms

    def adversary(self, p_real: Tensor, p_fake: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """(generator's, critic's) adversarial losses, and the means to watch."""
        if self.method.adversary == "wgan":
            real, fake = lag.value(p_real), lag.value(p_fake)
            losses = W.generator_loss(fake), W.critic_loss(real, fake)
        else:
            real, fake = lag.logits(p_real), lag.logits(p_fake)
            if self.method.adversary == "logistic":
                losses = logistic.generator_loss(fake), logistic.discriminator_loss(real, fake)
            else:  # each image against the average of the whole batch, of all processes
                every = gathered(real), gathered(fake)
                losses = relativistic.generator_loss(*every), relativistic.critic_loss(*every)
        return *losses, {"real": real.mean(), "fake": fake.mean()}

    def baseline(self, x: Images, y: Images, ctx: Context) -> Iterator[Update]:
        """EDSR: pixels alone. SRGAN: pixels, features and a discriminator."""
        with ctx.autocast():
            fake = self.nets["generator"](y)
        loss = pixels = (fake - x).square().mean()
        terms, losses = {"pixels": pixels}, {}
        if self.method.adversary == "srgan":
            with ctx.autocast():
                real, made = (self.nets["critic"].positions(v) for v in (x, fake))
            losses["critic"] = logistic.discriminator_loss(real, made)
            loss = loss + self.job.adversarial_weight * logistic.generator_loss(made)
            terms["critic"] = losses["critic"]
        if self.features is not None:
            with ctx.autocast():
                a, b = (self.features((v + 1) / 2).float() for v in (x, fake))
            scale = FEATURE_SCALE.get(self.job.features, 1.0)
            terms["features"] = ((a.detach() - b) / scale).square().mean()
            loss = loss + self.job.feature_weight * terms["features"]
        ctx.log(**terms)
        yield {"generator": loss, **losses}


def _gradients(loss: Tensor, inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)


def _sum(a: Tensor | None, b: Tensor | None, weight: float = 1.0) -> Tensor | None:
    """a + weight * b, where a stage that takes no part has no gradient."""
    if a is None or b is None:
        return a if b is None else weight * b
    return a + weight * b
