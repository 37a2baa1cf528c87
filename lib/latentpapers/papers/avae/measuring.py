"""Numbers of outputs: the classifiers that judge images, attributes, and learning curves."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentpapers import config, data, models, weights
from latentpapers.errors import UserError
from latentpapers.losses import energy as E
from latentpapers.metrics import classifiers, digits_classifier, frechet, intervals, translation
from latentpapers.metrics.protocol import Score
from latentpapers.papers.avae.networks import recipe
from latentpapers.papers.avae.outputs import sample
from latentpapers.papers.avae.training import METHODS, Training
from latentpapers.shapes import Images, PerImage
from latentpapers.train import checkpoint
from latentpapers.train.runs import state_of


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
