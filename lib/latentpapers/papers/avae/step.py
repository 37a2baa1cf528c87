"""The training step of Algorithm 1 for every row of `METHODS`, and what trains a run."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from latentpapers.losses import energy as E
from latentpapers.losses import variational as V
from latentpapers.losses.equilibrium import (
    Controller,
    Gains,
    balance,
    convergence_measure,
    error_signal,
)
from latentpapers.papers.avae.baselines import BASELINES, game
from latentpapers.papers.avae.networks import Networks, method_of
from latentpapers.papers.avae.training import Training
from latentpapers.shapes import Bytes, Codes, Images
from latentpapers.train.context import Context
from latentpapers.train.engine import Given, Task, Update
from latentpapers.train.schedule import halved_at


class Step(Task):
    """The training step of Algorithm 1, for every row of `METHODS`.

    All three updates of Algorithm 1 use one forward pass: its lines 3 to 6 and 9 run before any
    parameter moves, so their gradients are taken together.
    """

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job, self.method = job, method_of(job)
        self.nets = Networks(job, seed).all
        self.ema: dict[str, float] = {}
        own = job.gains or self.method.gains.values()
        gains = Gains(*(job.gains_scale * g for g in own))
        self.controller = Controller(
            gains, clamped=job.eq12 != "free", positional=job.eq12 == "positional", device=device
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parts = {"decoder": ["decoder"], "encoder": ["encoder"],
                 "critic": ["critic_encoder", "critic_decoder"]}  # fmt: skip
        return {
            name: torch.optim.Adam(
                [p for n in nets for p in self.nets[n].parameters()], lr=self.job.lr, foreach=True
            )
            for name, nets in parts.items()
            if nets[0] in self.nets
        }

    def blocks(self) -> list[nn.Module]:
        """All networks, whole: every call of one has the same shape."""
        return [*self.nets.values()]

    def before_step(self, step: int, images: int) -> float:
        every = self.job.halve_every
        return halved_at(step, tuple(range(every, step + 1, every))) if every else 1.0

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        like = next(self.nets["decoder"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        noise, prior = ctx.noise(self.job.latent).to(like), self.prior(ctx).to(like)
        with ctx.autocast():
            images = self.generate(x, noise, prior)
            terms, critic, pulls = self.judge(x, images)
        ctx.log(**terms, k=self.controller.k)
        losses: Update = {}
        if self.method.encoder:
            losses["encoder"] = terms["L_n"] + self.job.gamma * terms["L_e"] + pulls["encoder"]
        losses["decoder"] = self.job.gamma * terms["L_e"] + pulls["decoder"]
        yield losses | ({"critic": Given(critic)} if critic else {})

    def prior(self, ctx: Context) -> Codes:
        """z_g of this micro-batch."""
        if self.method.prior == "uniform":
            return ctx.uniform(self.job.latent) * 2 - 1
        return ctx.noise(self.job.latent)

    def generate(self, x: Images, noise: Codes, prior: Codes) -> dict[str, Tensor]:
        """Lines 3 to 5 of Algorithm 1: x_g, and with an encoder x_v, mu and log sigma^2."""
        out = {"fake": self.nets["decoder"](prior)}
        if self.method.encoder:
            mean, log_variance = self.nets["encoder"].moments(x)
            z = V.reparameterise(mean, log_variance, noise)
            out |= {
                "recovered": self.nets["decoder"](z),
                "mean": mean,
                "log_variance": log_variance,
            }
        return out

    def losses(self, x: Images, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eqs 2, 3, 7 and 9; terms that the method lacks are 0."""
        terms = dict.fromkeys(("L_e", "L_n", "L_d", "L_g", "L_v", "L_s"), x.new_zeros(()))
        if self.method.encoder:
            terms["L_e"] = V.reconstruction(x, images["recovered"])
            terms["L_n"] = V.kl_to_standard_normal(
                images["mean"], images["log_variance"], reduction=self.job.kl, pixels=x[0].numel()
            )
        if not self.method.critic:
            return terms
        parts = {"L_d": x, "L_g": images["fake"]}
        parts |= {"L_v": images["recovered"]} if self.method.encoder else {}
        codes = {}
        for name, image in parts.items():
            reproduced, codes[name] = E.autoencode(
                self.nets["critic_encoder"], self.nets["critic_decoder"], image
            )
            terms[name] = E.energy(image, reproduced)
        # z_d is a target, not something the generator may move
        if self.method.similarity == "paired":
            terms["L_s"] = E.latent_similarity(codes["L_d"].detach(), codes["L_v"])
        elif self.method.similarity == "unpaired":
            # image and sample i have nothing to do with each other: their pairs are random
            pairs = self.job.unpaired == "pairs"
            compare = E.latent_similarity if pairs else E.unpaired_latent_similarity
            terms["L_s"] = compare(codes["L_d"].detach(), codes["L_g"])
        return terms

    def objectives(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eqs 13 to 15 as printed, each to be differentiated by its own parameters alone.

        `updates` takes the same gradients with an eighth fewer operations; a test holds them equal.
        """
        job, t = self.job, terms
        weights = {"alpha": job.alpha, "beta": job.beta, "gamma": job.gamma}
        out = {"decoder": E.generator_objective(t["L_g"], t["L_v"], t["L_s"], t["L_e"], **weights)}
        if self.method.encoder:
            out["encoder"] = E.encoder_objective(
                t["L_n"], t["L_s"], t["L_e"], beta=job.beta, gamma=job.gamma
            )
        if self.method.critic:
            out["critic"] = E.discriminator_objective(
                t["L_d"], t["L_g"], t["L_v"], self.controller.k, job.alpha
            )
        return out

    def judge(
        self, x: Images, images: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...], dict[str, Tensor]]:
        """The terms, the critic's gradients, and what the critic says to encoder and decoder.

        The energy of the fakes is differentiated once, for the critic's parameters (weight -k) and
        for the images (weight 1) together. Its pull on an image enters the generator's losses as
        the inner product <image, gradient>, which has that gradient.
        """
        zero = x.new_zeros(())
        if not self.method.critic:
            return self.losses(x, images), (), {"encoder": zero, "decoder": zero}
        leaves = {
            n: images[n].detach().requires_grad_() for n in ("fake", "recovered") if n in images
        }
        terms = self.losses(x, images | leaves)
        names, params = list(leaves), self._critic_parameters()
        energies = E.adversarial_generator(terms["L_g"], terms["L_v"], self.job.alpha)
        fake = torch.autograd.grad(energies, [*params, *leaves.values()], retain_graph=True)
        real = torch.autograd.grad(terms["L_d"], params, retain_graph=True)
        critic = tuple(r - self.controller.k * f for r, f in zip(real, fake))
        pulls = dict(zip(names, fake[len(params) :]))
        moved = "recovered" if self.method.encoder else "fake"
        similar = torch.zeros_like(leaves[moved])
        if self.method.similarity != "none":
            (similar,) = torch.autograd.grad(self.job.beta * terms["L_s"], leaves[moved])
        decoder = sum(
            ((images[n] * pulls[n]).sum() for n in names), (images[moved] * similar).sum()
        )
        encoder = (images[moved] * similar).sum() if self.method.encoder else zero
        # the terms with the generator's own graph: L_e and L_n of the undetached images
        own = {"L_e": V.reconstruction(x, images["recovered"])} if self.method.encoder else {}
        return terms | own, critic, {"encoder": encoder, "decoder": decoder}

    def _critic_parameters(self) -> list[nn.Parameter]:
        return [p for n in ("critic_encoder", "critic_decoder") for p in self.nets[n].parameters()]

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Lines 12 and 13 use k_{t-1} in the loss and compute k_t for the next step."""
        if not self.method.critic:
            return
        error = error_signal(
            terms["L_d"], terms["L_g"], terms["L_v"],
            eta=self.job.eta, alpha=self.job.alpha, reading=self.job.eq11,
        )  # fmt: skip
        self.controller.step(error)
        terms["M"] = convergence_measure(
            terms["L_d"], terms["L_g"], terms["L_v"], eta=self.job.eta, alpha=self.job.alpha
        )
        terms["ratio"] = balance(terms["L_g"], terms["L_v"], terms["L_d"], self.job.alpha)

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)


def task_of(job: Training, seed: int, device: str | torch.device = "cpu") -> Task:
    """What the engine trains: `Step` for a row of `METHODS`, else the baseline's game."""
    return game(job, seed) if job.method in BASELINES else Step(job, seed, device)
