"""AVAE: adversarial training of variational auto-encoders (Khan, Hayat, Barnes).

A VAE is the generator, an auto-encoder the discriminator, a controller keeps them in balance.
BEGAN, BEGAN* + LSM and a plain VAE are the same step with terms switched off: rows of `METHODS`.
The other methods of Figures 5 and 7 are games of their own: rows of `BASELINES`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latentpapers import config, data, models, weights
from latentpapers.errors import UnknownName, UserError
from latentpapers.losses import energy as E
from latentpapers.losses import gans
from latentpapers.losses import variational as V
from latentpapers.losses.equilibrium import (
    Controller,
    Gains,
    balance,
    convergence_measure,
    error_signal,
)
from latentpapers.metrics import classifiers, digits_classifier, frechet, intervals, translation
from latentpapers.metrics.protocol import Score
from latentpapers.nets import gans as nets_of_gans
from latentpapers.nets.began import Decoder, Encoder, seeded
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Codes, Images, PerImage
from latentpapers.train import checkpoint, games
from latentpapers.train.context import Context
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, Given, Task, Update, fit
from latentpapers.train.games import Pace
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of
from latentpapers.train.schedule import halved_at

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (15, 970), "quick/2_training": (16, 900), "quick/3_tables": (56, 1050),
    "quick/4_figures": (40, 1550), "quick/5_explore": (12, 940),
    "cpu/3_tables": (104, 1000), "cpu/4_figures": (57, 2300),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 517, "gpu/3_tables": 60, "gpu/4_figures": 23}  # seconds of 600
BUDGET = 300_000 * 16  # images of the paper's run: 300k iterations (section 4), BEGAN's batch of 16


@dataclass(frozen=True)
class Method:
    """Which terms a method has.

    Attributes:
        title: the row's name in the paper's Table 1.
        encoder: the generator is a VAE (else a decoder alone).
        critic: there is a discriminator.
        similarity: eq 9 paired (`paired`), without an x_v to pair with (`unpaired`, read as
            `Training.unpaired` says), or `none`.
        gains: of the controller; BEGAN's has the integral part alone.
        prior: of z_g; BEGAN draws from U(-1, 1), AVAE from N(0, I).
    """

    title: str
    encoder: bool = True
    critic: bool = True
    similarity: Literal["paired", "unpaired", "none"] = "paired"
    gains: Gains = field(default_factory=Gains)
    prior: Literal["normal", "uniform"] = "normal"


METHODS: dict[str, Method] = {
    "vae": Method("VAE", critic=False, similarity="none"),
    "began": Method("BEGAN", encoder=False, similarity="none",
                    gains=Gains(1e-3, 0.0, 0.0), prior="uniform"),
    "began_lsm": Method("Ours (BEGAN* + LSM)", encoder=False, similarity="unpaired"),
    "avae": Method("Ours (VAE + BEGAN* + LSM)"),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        method: a row of `METHODS` or of `BASELINES`.
        data, size, channels, images: training set, pixels a side, colours, images taken of it.
        width, latent: n and N of the BEGAN backbone; the paper gives neither (errata). Of a
            baseline: channels of its generator's widest image, Z.
        batch, steps, seconds: images a step, steps, and the time limit that may end it sooner.
        lr, halve_every: Adam's rate, halved every so many steps (0: never); a baseline has its own
            paper's rates times `speed`.
        alpha, beta, gamma, eta: section 4.
        kl: reduction of eq 3; the paper gives none.
        eq11: `corrected` or `printed` (erratum).
        eq12: k `clamped` to [0, 1], `free`, or by `positional` parts and clamped (erratum).
        unpaired: what eq 9 compares where there is no x_v: the batches' `means`, or random `pairs`
            of a real image and a sample (erratum).
        gains_scale: multiplies the controller's gains; short runs need a faster controller.
        gains: instead of the method's: integral, proportional, derivative (empty: the method's).
        cap: most channels of a baseline's generator, 0: as its paper; BEGAN's has `width` all over.
        speed: multiplies a baseline's learning rates; short runs need faster ones.
        log_every, precision, compile: of the engine.
    """

    method: str
    data: str
    size: int
    images: int
    width: int
    latent: int
    steps: int
    channels: int = 3
    batch: int = 16
    seconds: float | None = None
    lr: float = 5e-5
    halve_every: int = 0
    alpha: float = 0.3
    beta: float = 0.1
    gamma: float = 0.1
    eta: float = 0.5
    kl: Literal["mean", "sum", "pixels"] = "pixels"
    eq11: Literal["corrected", "printed"] = "corrected"
    eq12: Literal["clamped", "free", "positional"] = "clamped"
    unpaired: Literal["means", "pairs"] = "means"
    gains_scale: float = 1.0
    gains: tuple[float, ...] = ()
    cap: int = 0
    speed: float = 1.0
    log_every: int = 50
    precision: str = "fp32"
    compile: bool = False


class Networks:
    """The networks of one method, initialised from the seed alone."""

    def __init__(self, job: Training, seed: int) -> None:
        method = method_of(job)
        shape = (job.size, job.width, job.latent)

        def make(name: str, kind: type[nn.Module], **options: Any) -> nn.Module:
            options["channels"] = job.channels
            return seeded(lambda: kind(*shape, **options), generator(seed, "init", name))

        self.all: dict[str, nn.Module] = {"decoder": make("decoder", Decoder)}
        if method.encoder:
            self.all["encoder"] = make("encoder", Encoder, heads=2)
        if method.critic:
            self.all["critic_encoder"] = make("critic_encoder", Encoder)
            self.all["critic_decoder"] = make("critic_decoder", Decoder)


def method_of(job: Training) -> Method:
    """The `METHODS` row of a run.

    Raises:
        UnknownName: no such method.
    """
    if job.method not in METHODS:
        raise UnknownName("method", job.method, [*METHODS, *BASELINES])
    return METHODS[job.method]


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


Recipes = dict[str, dict[str, Any]]


def _recipes(**parts: tuple[str, dict[str, Any]]) -> Recipes:
    # getattr: a misspelled class fails here, and its file is one that a job depends on
    return {
        name: {"net": f"gans.{getattr(nets_of_gans, kind).__name__}", "options": own}
        for name, (kind, own) in parts.items()
    }


def _dcgan(job: Training, kernel: int = 4) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels, "kernel": kernel}
    decoder = own | {"latent": job.latent, "cap": job.cap}
    return _recipes(decoder=("Generator", decoder), critic=("Critic", own))


def _ebgan(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width // 2, "channels": job.channels}
    return {"decoder": _dcgan(job)["decoder"]} | _recipes(critic=("EnergyCritic", own))


def _vae_gan(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels}
    coded = own | {"latent": job.latent, "cap": job.cap}
    encoder = coded | {"hidden": 16 * job.width}
    return _recipes(encoder=("Encoder", encoder), decoder=("SimilarityDecoder", coded),
                    critic=("SimilarityCritic", own))  # fmt: skip


def _ali(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels, "latent": job.latent}
    coded = own | {"cap": job.cap, "kernel": 4, "slope": 0.02, "deviation": 0.01}
    return _recipes(encoder=("Encoder", coded | {"bottom": 4}), critic=("PairCritic", own),
                    decoder=("Generator", coded | {"squash": "sigmoid"}))  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """A method of Figure 5 or 7 that is not AVAE with terms switched off.

    Attributes:
        title: as the paper's figures name it.
        game: what is played, see `train.games`.
        recipes: run -> how `lp.models.build` makes each network.
        pace: its own paper's rates and optimiser.
        defaults: its own paper's width and latent; the batch is equal for all.
        options: of the game.
        prior: of z.
        source: the paper.
        objective: player -> its loss in LaTeX; D is a logit, f the discriminator's features.
    """

    title: str
    game: type[games.Game]
    recipes: Callable[[Training], Recipes]
    pace: Pace
    defaults: dict[str, int]
    options: dict[str, float] = field(default_factory=dict)
    prior: Literal["normal", "uniform"] = "normal"
    source: str = ""
    objective: dict[str, str] = field(default_factory=dict)


# Reference settings of each paper's public code; where code and paper differ, the code's.
BASELINES: dict[str, Baseline] = {
    "dcgan": Baseline(
        "DCGAN", games.Logistic, _dcgan, Pace({"critic": 2e-4, "decoder": 2e-4}),
        {"width": 64, "latent": 100}, source="Radford et al. 2016",
        objective={"critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))",
                   "decoder": r"-\log\sigma(D(G(z)))"},
    ),
    "vae_gan": Baseline(
        "VAE/GAN", games.LearnedSimilarity, _vae_gan,
        Pace(dict.fromkeys(("encoder", "decoder", "critic"), 0.025 / 64), rule="rmsprop",
             decay=0.75, floor=1e-5 / 0.025),
        {"width": 64, "latent": 128}, source="Larsen et al. 2016",
        objective={"encoder": r"\mathrm{KL} + \frac{1}{2}\|f(x) - f(x_v)\|^2",
                   "decoder": r"\epsilon\,\frac{1}{2}\|f(x) - f(x_v)\|^2"
                              r" - (1 - \epsilon)\log\sigma(D(G(z)))",
                   "critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))"},
    ),
    "ebgan": Baseline(
        "EBGAN", games.EnergyBased, _ebgan, Pace({"critic": 1e-4, "decoder": 2e-4}),
        {"width": 128, "latent": 100}, {"margin": 0.1}, source="Zhao et al. 2017",
        objective={"critic": r"E(x) + \max(0, m - E(G(z)))",
                   "decoder": r"E(G(z)) + 0.1\,\overline{\cos^2}_{i \neq j}"},
    ),
    "bgan": Baseline(
        "BGAN", games.BoundarySeeking, lambda job: _dcgan(job, kernel=5),
        Pace({"critic": 1e-4, "decoder": 1e-4}), {"width": 128, "latent": 128},
        source="Hjelm et al. 2018",
        objective={"critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))",
                   "decoder": r"(D(G(z)) - \log Z)^2"},
    ),
    "ali": Baseline(
        "ALI", games.Inference, _ali, Pace({"critic": 1e-4, "decoder": 1e-4}),
        {"width": 32, "latent": 256}, source="Dumoulin et al. 2017",
        objective={"critic": r"-\log\sigma(D(x, E(x))) - \log\sigma(-D(G(z), z))",
                   "decoder": r"-\log\sigma(-D(x, E(x))) - \log\sigma(D(G(z), z))"},
    ),
}  # fmt: skip

# What the paper's figures show and this project does not train.
NOT_TRAINED = {
    "pixelcnn": "draws pixel by pixel and has no latent of its own to walk in; "
    "the paper's panel walks in another network's codes"
}


def title_of(method: str) -> str:
    """A method's name in the paper's table and figures.

    Raises:
        UnknownName: neither a row of `METHODS` nor of `BASELINES`.
    """
    return config.named("method", method, METHODS | BASELINES).title


def _game(job: Training, seed: int) -> games.Game:
    row = BASELINES[job.method]
    nets = {
        name: seeded(lambda r=recipe: models.build(r), generator(seed, "init", name))
        for name, recipe in row.recipes(job).items()
    }
    rates = {player: job.speed * rate for player, rate in row.pace.rates.items()}
    pace = replace(row.pace, rates=rates, decay_images=job.images if row.pace.decay < 1 else 0)
    return row.game(nets, job.latent, pace, **row.options)


def task_of(job: Training, seed: int, device: str | torch.device = "cpu") -> Task:
    """What the engine trains: `Step` for a row of `METHODS`, else the baseline's game."""
    return _game(job, seed) if job.method in BASELINES else Step(job, seed, device)


@dataclass(frozen=True)
class Preset:
    """One column of the preset table.

    Attributes:
        training: runs by checkpoint name. What a name is for is the same in every preset:
            `table_*` Table 1 on digits (scored by a judge that everybody has), `cifar_*` on
            CIFAR-10 itself, `faces_avae` Figures 2, 4 and 6, `equal_*` Figures 5 and 7, all methods
            on equal terms, `large_avae` Figure 3, `attributes_avae` Figure 8, `ablation_*` one
            thing or reading changed, `cats_avae` a second domain (Figure 2). In quick, training
            only proves itself (`proof`) and the names are shipped checkpoints, made by `SHIPPED`.
        table_seeds: training seeds behind Table 1 on digits; a row has those that were trained.
        ablation_seeds: the same behind the ablations.
        n_score: images per Inception score on digits.
        n_cifar: images per Inception score on CIFAR-10.
        n_images: images behind each per-image number.
        more: times as many as 64 images, 512 samples, 24 walks where they cost nothing but time.
        examples: images in a figure's row.
        curved: runs that are measured on the way, for learning curves (`Runs.curve`).
    """

    training: dict[str, Training]
    table_seeds: tuple[int, ...] = tuple(range(5))
    ablation_seeds: tuple[int, ...] = tuple(range(8))
    n_score: int = 5000
    n_cifar: int = 5000
    n_images: int = 64
    more: int = 1
    examples: int = 8
    curved: tuple[str, ...] = ()


def _table(prefix: str = "table", **options: Any) -> dict[str, Training]:
    return {f"{prefix}_{m}": Training(m, **options) for m in ("began", "began_lsm", "avae")}


FIGURE_5 = ("vae", "dcgan", "vae_gan", "ebgan", "began", "bgan", "avae")  # its rows, in order


def _equal(*, own: bool, **options: Any) -> dict[str, Training]:
    """Every method of Figures 5 and 7 on equal terms; baselines of their `own` width and latent."""
    runs = {}
    for method in (*FIGURE_5, "ali"):
        row = BASELINES.get(method)
        size = {k: row.defaults[k] for k in ("width", "latent")} if own and row else {}
        runs[f"equal_{method}"] = Training(method, **{**options, **size})
    return runs


def _pictures(
    faces: dict[str, Any],
    large: dict[str, Any],
    attributes: dict[str, Any],
    limits: dict[str, dict[str, Any]],
) -> dict[str, Training]:
    """The runs behind Figures 2 to 8; `limits` says how long each may take."""
    runs = {f"faces_{m}": {"method": m, **faces} for m in ("avae", "vae", "began")}
    runs["large_avae"] = {"method": "avae", **large}
    runs["attributes_avae"] = {"method": "avae", **attributes}
    return {name: Training(**{**options, **limits.get(name, {})}) for name, options in runs.items()}


_DIGITS = {"data": "digits", "size": 32, "channels": 1, "images": 4000, "latent": 8}
_SMALL = {"width": 16, "latent": 32, "lr": 1e-3, "halve_every": 4000, "gains_scale": 100.0,
          "precision": "bf16"}  # fmt: skip

# Figure 5 on equal terms: images, batch, steps, latent, and generators of about 45,000 parameters.
_CAPS = {"vae_gan": 16, "bgan": 24, "dcgan": 32, "ebgan": 32, "ali": 32}
_SPEEDS = {"vae_gan": 2.0, "bgan": 4.0, "dcgan": 2.0, "ebgan": 5.0, "ali": 5.0}
_EQUAL: dict[str, Training] = {
    name: replace(job, cap=_CAPS.get(job.method, 0), speed=_SPEEDS.get(job.method, 1.0))
    for name, job in _equal(
        own=False, data="faces-dcgan", size=32, images=20_000, steps=3000, batch=16,
        **{**_SMALL, "halve_every": 1500},
    ).items()
}  # fmt: skip

# One thing changed at a time: the controller's parts, the learned similarity, the VAE, weights,
# and the readings of errata avae-e1, e8, e12 and e14 in the position that is not used.
_ABLATION: dict[str, Any] = {**_DIGITS, "width": 4, "steps": 300, "log_every": 10, "lr": 1e-3,
                             "gains_scale": 100.0, "precision": "bf16"}  # fmt: skip
_CHANGES: dict[str, dict[str, Any]] = {
    "ablation_avae": {},
    "ablation_p": {"gains": (0.0, 1e-2, 0.0)},
    "ablation_p_textbook": {"gains": (0.0, 1e-2, 0.0), "eq12": "positional"},
    "ablation_pi": {"gains": (1e-3, 1e-2, 0.0)},
    "ablation_pid": {"gains": (1e-3, 1e-2, 1e-2)},
    "ablation_no_lsm": {"beta": 0.0},
    "ablation_no_vae": {"method": "began_lsm"},
    "ablation_no_vae_pairs": {"method": "began_lsm", "unpaired": "pairs", "log_every": 20},
    "ablation_at_50": {"steps": 50},
    "ablation_at_100": {"steps": 100},
    # the weights: each off (beta: `no_lsm`), and well above the paper's value
    "ablation_alpha_0": {"alpha": 0.0},
    "ablation_alpha_06": {"alpha": 0.6},  # above eta: eq 10 then asks for a negative L_g
    "ablation_beta_1": {"beta": 1.0},
    "ablation_gamma_0": {"gamma": 0.0},
    "ablation_gamma_1": {"gamma": 1.0},
    "ablation_eta_03": {"eta": 0.3},
    "ablation_eta_07": {"eta": 0.7},
    "ablation_printed": {"eq11": "printed"},
    "ablation_free": {"eq12": "free"},
    "ablation_kl_mean": {"kl": "mean", "log_every": 20},  # judged by their end, not their curve
    "ablation_kl_sum": {"kl": "sum", "log_every": 20},
}
_ABLATIONS = {
    name: Training(**{"method": "avae", **_ABLATION, **change}) for name, change in _CHANGES.items()
}

# How the shipped checkpoints were trained, on two CPU cores; `latentpapers train avae --run NAME`.
# What the time allowed is in their cards: a few percent of the paper's budget at best.
SHIPPED: dict[str, Training] = {
    **_table(**{**_SMALL, **_DIGITS, "halve_every": 1000}, steps=3000),
    **_table(
        "cifar",
        data="cifar10-jpeg",
        size=32,
        images=50_000,
        steps=12_000,
        **{**_SMALL, "halve_every": 6000},
    ),
    **_pictures(
        {"data": "faces-dcgan", "size": 64, "images": 20_000, "steps": 2000, **_SMALL},
        {"data": "drawn-faces", "size": 128, "images": 5_000, "steps": 1500, **_SMALL},
        {"data": "drawn-faces", "size": 64, "images": 10_000, "steps": 2500, **_SMALL},
        {"faces_avae": {"steps": 8000, "width": 24, "halve_every": 5000}},
    ),
    **_EQUAL,
    **_ABLATIONS,
}

# Networks that a shipped file keeps; all of them where nothing is said.
KEPT: dict[str, tuple[str, ...]] = {
    **{f"table_{m}": ("decoder",) for m in ("began", "began_lsm", "avae")},
    **{f"cifar_{m}": ("decoder",) for m in ("began", "began_lsm", "avae")},
    **dict.fromkeys(_EQUAL, ("decoder",)),
    "equal_ali": ("encoder", "decoder"),
    **dict.fromkeys(_ABLATIONS, ("decoder",)),
    "ablation_p_textbook": ("no network",),  # its curve is all that is asked for
    "faces_vae": ("decoder",),
    "faces_began": ("decoder",),
    "large_avae": ("decoder",),
    "attributes_avae": ("encoder", "decoder"),
}

_GPU = {"width": 64, "latent": 64, "lr": 2e-4, "gains_scale": 10.0, "precision": "bf16",
        "batch": 64, "steps": 1_000_000}  # fmt: skip
# Training may take 520 of the 600 s; the rest is for notebooks 3 and 4. The rate asked of the CIFAR
# rows is 5,000 images/s: 500,000 images would take 100 s each, which the other runs leave no room
# for; in 74 s they see 370,000. n = 32 at 64 px asks for as many operations an image (8.2 against
# 7.6 GFLOP), so as many images/s are expected where operations decide, half of it where memory
# does; a quarter at 128 px. So faces_avae should see 110,000 to 220,000 images in its 45 s,
# large_avae 17,000 to 35,000 in its 28 s. What they saw stands on their cards.
_GPU_PICTURES = {**_GPU, "width": 32}
_GPU_SECONDS = {"faces_avae": 45.0, "large_avae": 28.0, "attributes_avae": 20.0}
_GPU_FACES = {"data": "faces-dcgan", "size": 64, "images": 20_000}
# equal images for all, as many as fit: a method that is too slow for them stops sooner
_GPU_EQUAL = {**_GPU_FACES, **_GPU_PICTURES, "steps": 750, "seconds": 5.0}
_GPU_SLOW = {"equal_avae": 18.0, "equal_began": 12.0, "equal_vae": 7.0}
# Of the ablations those that a claim asks about; errata's other readings are the CPU's to decide.
# 900 steps of 64 images, twelve times as many as there, by networks eight times as wide. At this
# size launches take the time, not operations: 8 s allow 9 ms a step.
_GPU_ABLATIONS = tuple(
    f"ablation_{name}"
    for name in ("avae", "p_textbook", "pi", "pid", "no_lsm", "no_vae", "at_50", "at_100",
                 "beta_1", "alpha_0", "alpha_06", "gamma_0", "gamma_1", "eta_03", "eta_07")
)  # fmt: skip
_PAPER = {"width": 128, "latent": 64, "lr": 5e-5, "batch": 16, "steps": 300_000}


def _gpu() -> dict[str, Training]:
    """600 s in all. Table 1 is of n = 64; a baseline has its own paper's width and rates."""
    pictures = _pictures(
        {**_GPU_FACES, **_GPU_PICTURES},
        {"data": "drawn-faces", "size": 128, "images": 10_000, **_GPU_PICTURES},
        {"data": "drawn-faces", "size": 64, "images": 20_000, **_GPU_PICTURES},
        {name: {"seconds": seconds} for name, seconds in _GPU_SECONDS.items()},
    )
    return {
        **_table(**{**_GPU, **_DIGITS}, seconds=6.0),
        **_table("cifar", **_GPU, data="cifar10-jpeg", size=32, images=50_000, seconds=74.0),
        **{name: pictures[name] for name in _GPU_SECONDS},
        "cats_avae": Training("avae", "cats", 64, 4618, seconds=14.0, **_GPU_PICTURES),
        **{
            name: replace(job, seconds=_GPU_SLOW.get(name, job.seconds))
            for name, job in _equal(own=True, **_GPU_EQUAL).items()
        },
        **{name: _longer(_ABLATIONS[name]) for name in _GPU_ABLATIONS},
    }


def _longer(job: Training) -> Training:
    """A GPU's ablation: a stage keeps its share of the steps, and has that share of the time."""
    share = job.steps / _ABLATION["steps"]
    return replace(job, width=32, batch=64, log_every=3 * job.log_every, steps=3 * job.steps,
                   seconds=8.0 * share)  # fmt: skip


def _paper() -> dict[str, Training]:
    celeba = {"data": "celeba", "size": 64, "images": 162_770}
    return {
        **_table(**{**_PAPER, **_DIGITS}),
        **_table("cifar", data="cifar10", size=32, images=50_000, **_PAPER),
        **_pictures(celeba | _PAPER, celeba | _PAPER | {"size": 128}, celeba | _PAPER, {}),
        "cats_avae": Training("avae", "cats", 64, 4618, **_PAPER),
        **_equal(own=True, **celeba, **_PAPER),
        **_ABLATIONS,  # the paper has none; 3_tables shows them in every preset
    }


_QUICK = Preset(
    training={
        "proof": Training(
            "avae", **_DIGITS, width=8, steps=40, log_every=2, lr=1e-3, gains_scale=100.0
        )
    }
)
PRESETS: dict[str, Preset] = {
    "quick": _QUICK,
    # CIFAR-10 at the 50,000 samples of published scores. Digits stay at 5,000: their intervals are
    # over seeds. Portraits stay at the 64 held-out ones that ship; what can be drawn is multiplied.
    "cpu": replace(_QUICK, n_cifar=50_000, more=8),
    "gpu": Preset(training=_gpu(), n_cifar=50_000, n_images=2000, more=8, curved=("faces_avae",)),
    "paper": Preset(training=_paper(), n_cifar=50_000, n_images=2000, curved=("faces_avae",)),
}


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        flip=job.data not in ("digits", "drawn-faces"), precision=job.precision,
        compile=job.compile,
    )  # fmt: skip
    task = task_of(job, seed, device)
    if isinstance(task, games.Inference):  # its first images have the colour of the data
        bias = gans.log_odds(data.to_float(pixels[:500]))
        task.nets["decoder"].bias.data.copy_(bias)
    fit(task, pixels, plan, seed=seed, config=job, path=state_of(path), device=device,
        group=group, progress=progress)  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{title_of(job.method)} on {job.data}, {job.size} px"
    return {"title": title, "budget": images / BUDGET}


def recipe(job: Training, name: str) -> dict[str, Any]:
    """How `lp.models.build` makes a network of this run."""
    if job.method in BASELINES:
        return BASELINES[job.method].recipes(job)[name]
    options = {"size": job.size, "width": job.width, "latent": job.latent, "channels": job.channels}
    kind = "Decoder" if name.endswith("decoder") else "Encoder"
    return {
        "net": f"began.{kind}",
        "options": options | ({"heads": 2} if name == "encoder" else {}),
    }


def sample(model: models.Model, n: int, seed: int, *, block: int = 250) -> Images:
    """`n` images from the prior, (n, C, H, W) clamped to [-1, 1]; image i depends on seed and i's
    block alone."""
    return torch.cat([*batches(model, n, seed, block=block)])


def batches(model: models.Model, n: int, seed: int, *, block: int = 250) -> Iterator[Images]:
    """The images of `sample` block by block, for counts that do not fit into memory."""
    for part in drawn(model, n, generator(seed, "sample")).split(block):
        with torch.no_grad():
            images = model["decoder"](part).clamp(-1, 1)
        yield images


def drawn(model: models.Model, n: int, g: torch.Generator) -> Codes:
    """`n` latents (n, Z) from the prior of the model's method, in its decoder's type."""
    job = model.card["config"]
    method = config.named("method", job["method"], METHODS | BASELINES)
    uniform = method.prior == "uniform"
    z = (torch.rand if uniform else torch.randn)(n, job["latent"], generator=g)
    return (z * 2 - 1 if uniform else z).to(next(model["decoder"].parameters()))


def judge(name: str, device: str = "cpu") -> Callable[[Images], Float[Tensor, "N 10"]]:
    """The shipped classifier `digitsnet` or `cifarnet` on a device: images to logits on the CPU.

    On the CPU they are those of `metrics.digits_classifier` and `metrics.cifar_classifier`, bit for
    bit (a test compares them).
    """
    net, grey = models.load(f"metrics/{name}", device=device)["classifier"], name == "digitsnet"
    net = net.to(memory_format=torch.channels_last) if grey else net

    def logits(images: Images) -> Float[Tensor, "N 10"]:
        x = classifiers.checked(images.to(device), 1 if grey else 3, name)
        x = x.contiguous(memory_format=torch.channels_last) if grey else x
        return classifiers.logits(net, x, 100).cpu()

    return logits


# CelebA's name of an attribute that drawn faces have too
_CELEBA = {
    "bald": "Bald", "black_hair": "Black_Hair", "blond_hair": "Blond_Hair",
    "grey_hair": "Gray_Hair", "fringe": "Bangs", "pale_skin": "Pale_Skin",
    "glasses": "Eyeglasses", "smiling": "Smiling", "mouth_open": "Mouth_Slightly_Open",
    "hat": "Wearing_Hat", "thick_brows": "Bushy_Eyebrows", "rosy_cheeks": "Rosy_Cheeks",
}  # fmt: skip


def attributes_of(images: data.ImageSet) -> dict[str, Bool[Tensor, "N"]]:
    """Attribute -> which images have it, under drawn-faces' names; CelebA lacks some of them.

    Raises:
        UserError: images without attributes.
    """
    if images.attributes is None:
        raise UserError(f"{images.name} has no attributes; take drawn-faces or celeba.")
    own = dict(zip(images.attribute_names, images.attributes.T.bool()))
    if "No_Beard" not in own:
        return own
    renamed = {name: own[theirs] for name, theirs in _CELEBA.items()}
    return renamed | {"beard": ~own["No_Beard"]}


def scale_of(model: models.Model, preset: str, device: str, seeds: tuple[int, ...]) -> config.Scale:
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data."""
    job = model.card["config"]
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {job['size']} px, width {job['width']}", device=device, seeds=seeds,
        standin=() if job["data"] in ("celeba", "cifar10") else (job["data"],),
    )  # fmt: skip


def joint_scale(scales: Sequence[config.Scale]) -> config.Scale:
    """One label for a figure of several networks: all data and seeds, the fewest images seen."""
    least = min(scales, key=lambda s: s.images)
    return replace(
        least, data=" and ".join(dict.fromkeys(s.data for s in scales)),
        seeds=tuple(sorted({seed for s in scales for seed in s.seeds})),
        standin=tuple(dict.fromkeys(name for s in scales for name in s.standin)),
    )  # fmt: skip


def measured(
    job: Training, path: Path, *, device: str = "cpu", n: int = 200
) -> dict[str, Score]:  # fmt: skip
    """What a learning curve shows: how well the VAE and the discriminator reproduce held-out images
    (those that there are), and the Frechet distance of samples on a stand-in's outputs. From the
    training's state: a shipped file may keep the decoder alone.

    Args:
        job, path: the run as far as it came, and its checkpoint.
        device: where networks run.
        n: held-out images, and samples if in colour; real images four times as many.
    """
    nets = {}
    for name, state in checkpoint.networks(state_of(path)).items():
        nets[name] = models.build(recipe(job, name)).to(device).eval().requires_grad_(False)
        nets[name].load_state_dict(state)
    model = models.Model(nets, {"config": config.as_dict(job)})
    held = data.load(job.data, size=job.size, split="test", n=n).pixels
    found = reproduced(model, data.to_float(held).to(device))
    errors = {name: intervals.bootstrap_mean(values.cpu()) for name, values in found.items()}
    return errors | _distance(model, job, n, device)


@torch.no_grad()
def reproduced(model: models.Model, x: Images, *, block: int = 50) -> dict[str, PerImage]:
    """Metric id -> mean |x - x'| of each image by the VAE (z the mean of its code) and by the
    discriminator, of `METHODS` alone.

    Args:
        x: (N, C, H, W) on [-1, 1].
    """
    method = METHODS.get(model.card["config"]["method"])
    ways: dict[str, Callable[[Images], Images]] = {}
    if method and method.encoder:
        ways["vae_l1_held_out"] = lambda v: model["decoder"](model["encoder"].moments(v)[0])
    if method and method.critic:
        ways["recon_l1"] = lambda v: model["critic_decoder"](model["critic_encoder"](v))
    return {
        name: torch.cat([E.energy_per_image(part, way(part)) for part in x.split(block)])
        for name, way in ways.items()
    }


def _distance(model: models.Model, job: Training, n: int, device: str) -> dict[str, Score]:
    """Of samples to real images: digits in the digit classifier's outputs, others in features."""
    if job.data == "digits":
        pixels = data.load("digits", size=job.size, n=1000).pixels
        logs = [digits_classifier.probabilities(images.cpu()).clamp_min(1e-30).log()
                for images in (data.to_float(pixels), sample(model, 1000, 0))]  # fmt: skip
        return {"fd_digitsnet_n1000": frechet.frechet_score(frechet.moments(logs[0]), logs[1])}
    look = weights.network("efficientnetlite0").to(device)
    look.size = max(64, job.size)  # its own 224 costs twelve times as much as 64
    pixels = data.load(job.data, size=job.size, n=4 * n).pixels
    seen = [translation.pooled(look, images)
            for images in (data.to_float(pixels), sample(model, n, 0))]  # fmt: skip
    return {"fd_efficientnetlite0_small": frechet.on_components(*seen)}


RUNS = Runs(
    "avae", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=frozenset([
        "faces_avae", *_EQUAL, *_ABLATIONS,
        *(f"{data}_{m}" for data in ("table", "cifar") for m in ("began", "began_lsm", "avae")),
    ]),
    measure=measured,
)  # fmt: skip
train, export, train_from_cli = RUNS.train, RUNS.export, RUNS.train_from_cli
