"""Games of a generator against a discriminator, for the engine: one class an idea.

A game gets its networks from whoever plays it. Generators are named `decoder` and take a latent,
so that samples of all methods are drawn in one way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentpapers.losses import gans, logistic
from latentpapers.losses import variational as V
from latentpapers.shapes import Bytes, Codes, Features, Images, PerImage, Scalar
from latentpapers.train.context import Context
from latentpapers.train.distributed import everyone, gathered
from latentpapers.train.engine import Task, Update


@dataclass(frozen=True)
class Pace:
    """How fast each player of a game learns.

    Attributes:
        rates: learning rate by player.
        rule: `adam` or `rmsprop`.
        betas: Adam's.
        decay: of the rates, every `decay_images` images, down to `floor` times the first.
    """

    rates: Mapping[str, float]
    rule: str = "adam"
    betas: tuple[float, float] = (0.5, 0.999)
    decay: float = 1.0
    decay_images: int = 0
    floor: float = 0.0

    def optimizer(self, player: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of one player."""
        rate = self.rates[player]
        if self.rule == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate, alpha=0.9, foreach=True)
        return torch.optim.Adam(parameters, lr=rate, betas=self.betas, foreach=True)

    def factor(self, images: int) -> float:
        """What the rates are multiplied by after so many images."""
        periods = images // self.decay_images if self.decay_images else 0
        return max(self.floor, self.decay**periods)


class Game(Task):
    """What all games share: `rounds` says what is played.

    Attributes:
        players: optimiser name -> the networks that it moves.
    """

    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "decoder": ("decoder",)}

    def __init__(self, nets: dict[str, nn.Module], latent: int, pace: Pace) -> None:
        self.nets, self.latent, self.pace = nets, latent, pace
        self.ema: dict[str, float] = {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            player: self.pace.optimizer(
                player, [p for name in names for p in self.nets[name].parameters()]
            )
            for player, names in self.players.items()
        }

    def before_step(self, step: int, images: int) -> float:
        return self.pace.factor(images)

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        like = next(self.nets["decoder"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1)
        yield from self.rounds(x.contiguous(memory_format=torch.channels_last), ctx)

    def rounds(self, x: Images, ctx: Context) -> Iterator[Update]:
        """The updates of one step."""
        raise NotImplementedError

    def drawn(self, ctx: Context) -> Codes:
        """Latents from the prior N(0, I)."""
        return ctx.noise(self.latent).to(next(self.nets["decoder"].parameters()))


class Logistic(Game):
    """DCGAN: the discriminator's step, then the generator's, with the loss that does not vanish.

    Source: Radford et al. 2016.
    """

    def rounds(self, x: Images, ctx: Context) -> Iterator[Update]:
        """The discriminator on fakes of its own draw, then the generator on new ones."""
        with ctx.autocast():
            with torch.no_grad():
                fake = self.nets["decoder"](self.drawn(ctx))
            loss = logistic.discriminator_loss(self.nets["critic"](x), self.nets["critic"](fake))
        ctx.log(L_D=loss)
        yield {"critic": loss}
        with ctx.autocast():
            logits = self.nets["critic"](self.nets["decoder"](self.drawn(ctx)))
            loss = self.generator_loss(logits)
        ctx.log(L_G=loss, D_fake=logits.mean(), Z=gans.partition(logits))
        yield {"decoder": loss}

    def generator_loss(self, fake: PerImage) -> Scalar:
        """The generator's loss from the logits of its images."""
        return logistic.generator_loss(fake)


class BoundarySeeking(Logistic):
    """BGAN: the generator seeks the discriminator's boundary; log Z is a running estimate.

    Source: Hjelm et al. 2018; decay 0.995 from 0 (public code).
    """

    def __init__(self, nets: dict[str, nn.Module], latent: int, pace: Pace) -> None:
        super().__init__(nets, latent, pace)
        self.log_z = torch.zeros((), device=next(nets["decoder"].parameters()).device)

    def generator_loss(self, fake: PerImage) -> Scalar:
        """The generator's loss from the logits of its images."""
        return gans.boundary_seeking(fake, self.log_z.to(fake, non_blocking=True))

    def after_step(self, terms: dict[str, Tensor]) -> None:
        self.log_z = 0.995 * self.log_z.to(terms["Z"], non_blocking=True) + 0.005 * terms["Z"].log()
        terms["log_Z"] = self.log_z

    def state_dict(self) -> dict[str, Any]:
        return {"log_z": self.log_z.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log_z = state["log_z"].to(self.log_z)


class EnergyBased(Game):
    """EBGAN: an auto-encoder's squared error as energy, a margin, codes pulled apart.

    Args:
        margin: m.
        pull: weight of the pulling-away term.

    Source: Zhao et al. 2017.
    """

    def __init__(
        self, nets: dict[str, nn.Module], latent: int, pace: Pace, *, margin: float,
        pull: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(nets, latent, pace)
        self.margin, self.pull = margin, pull

    def rounds(self, x: Images, ctx: Context) -> Iterator[Update]:
        """The discriminator on fakes of its own draw, then the generator on new ones."""
        with ctx.autocast():
            with torch.no_grad():
                fake = self.nets["decoder"](self.drawn(ctx))
            real_energy, _ = self.energy(x)
            fake_energy, _ = self.energy(fake)
        # the margin acts on the batch's mean: so does the public code, and so do equal processes
        loss = gans.margin_discriminator(real_energy, everyone(fake_energy), self.margin)
        ctx.log(E_real=real_energy, E_fake=fake_energy)
        yield {"critic": loss}
        with ctx.autocast():
            energy, codes = self.energy(self.nets["decoder"](self.drawn(ctx)))
        apart = gans.pulling_away(gathered(codes))
        ctx.log(L_G=energy, apart=apart)
        yield {"decoder": energy + self.pull * apart}

    def energy(self, x: Images) -> tuple[Scalar, Features]:
        """The batch's energy and the codes on the way."""
        reproduced, codes = self.nets["critic"](x)
        return gans.squared_energy(x, reproduced), codes


class LearnedSimilarity(Game):
    """VAE-GAN: the reconstruction is measured in the discriminator's features.

    All players move from one forward pass. The likelihood moves encoder and decoder alone, the GAN
    loss decoder and discriminator alone. A player that is too far ahead waits: the discriminator
    while one of its costs is below 0.33, the decoder while one is above 1.03, neither if both
    would. The costs are those of the step before, which all processes know.

    Args:
        share: of the likelihood in the decoder's loss.

    Source: Larsen et al. 2016, public code.
    """

    players: Mapping[str, tuple[str, ...]] = {
        name: (name,) for name in ("encoder", "decoder", "critic")
    }

    def __init__(
        self, nets: dict[str, nn.Module], latent: int, pace: Pace, *, share: float = 1e-6
    ) -> None:
        super().__init__(nets, latent, pace)
        self.share, self.costs = share, (0.68, 0.68)

    def waiting(self, margin: float = 0.35, middle: float = 0.68) -> str:
        """Who sits this step out: `critic`, `decoder` or nobody (empty)."""
        critic = min(self.costs) < middle - margin
        decoder = max(self.costs) > middle + margin
        return "" if critic == decoder else "critic" if critic else "decoder"

    def rounds(self, x: Images, ctx: Context) -> Iterator[Update]:
        """One group: all who do not wait."""
        noise, prior = self.drawn(ctx), self.drawn(ctx)
        with ctx.autocast():
            mean, log_variance = self.nets["encoder"].moments(x)
            recovered = self.nets["decoder"](V.reparameterise(mean, log_variance, noise))
            fake = self.nets["decoder"](prior)
            real_logits, real_features = self.nets["critic"](x)
            fake_logits, _ = self.nets["critic"](fake)
            _, features = self.nets["critic"](recovered)
        divergence = V.kl_to_standard_normal(mean, log_variance, reduction="sum")
        likelihood = gans.feature_likelihood(real_features.detach(), features)
        adversarial = logistic.generator_loss(fake_logits)
        costs = (logistic.generator_loss(real_logits), logistic.generator_loss(-fake_logits))
        ctx.log(L_n=divergence, L_f=likelihood, L_G=adversarial, D_real=costs[0], D_fake=costs[1],
                L_e=V.reconstruction(x, recovered))  # fmt: skip
        losses: Update = {
            "encoder": divergence + likelihood,
            "decoder": gans.shared_decoder(likelihood, adversarial, self.share),
            "critic": sum(costs),
        }
        losses.pop(self.waiting(), None)
        yield losses

    def after_step(self, terms: dict[str, Tensor]) -> None:
        # the rule needs both numbers: fetched at once, the only ones that a step waits for
        self.costs = tuple(torch.stack([terms["D_real"], terms["D_fake"]]).tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"costs": list(self.costs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.costs = tuple(state["costs"])


class Inference(Game):
    """ALI: an encoder and a generator against one discriminator of (image, code) pairs.

    Source: Dumoulin et al. 2017; all move from one forward pass (public code).
    """

    players: Mapping[str, tuple[str, ...]] = {
        "critic": ("critic",), "decoder": ("decoder", "encoder")
    }  # fmt: skip

    def rounds(self, x: Images, ctx: Context) -> Iterator[Update]:
        """One group: the discriminator against encoder and generator."""
        noise, prior = self.drawn(ctx), self.drawn(ctx)
        with ctx.autocast():
            code = V.reparameterise(*self.nets["encoder"].moments(x), noise)
            encoded = self.nets["critic"](x, code)
            decoded = self.nets["critic"](self.nets["decoder"](prior), prior)
        loss = gans.pair_discriminator(encoded, decoded)
        swapped = gans.pair_generator(encoded, decoded)
        ctx.log(L_D=loss, L_G=swapped)
        yield {"critic": loss, "decoder": swapped}
