"""The judge of generated drawn faces: which attributes an image shows.

Drawn faces have exact attributes; images that a network made of them have none, so a classifier
says what they show. It is trained on drawings, some of them blurred or noisy as a small GAN's are.
`python -m latentpapers.metrics.drawn_judge` trains it anew (two minutes of CPU) and writes
results/checkpoints/metrics/drawn_judge.safetensors with its balanced accuracy for each attribute.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers import data, models, paths, seeds
from latentpapers.errors import UnknownName
from latentpapers.metrics import classifiers
from latentpapers.nets.attributenet import AttributeNet
from latentpapers.shapes import Images

CHECKPOINT = "metrics/drawn_judge"
SIZE = 32


def probability(images: Images, attribute: str, *, block: int = 250) -> Float[Tensor, "N"]:
    """The judge's probability that each image shows an attribute; above 0.5 it does.

    It was trained on balanced losses: rare attributes are neither favoured nor forgotten. How
    often it errs is on its card (`accuracy`).

    Args:
        images: (N, 3, 32, 32) in [-1, 1].
        attribute: one of drawn-faces' attributes, `hat`.
        block: images a forward pass; it does not change the result beyond rounding.

    Raises:
        UserError: another shape, or values outside [-1, 1]. UnknownName: no such attribute.
    """
    images = classifiers.checked(images, 3, "the judge")
    model = models.load(CHECKPOINT)
    known = model.card["config"]["attributes"]
    if attribute not in known:
        raise UnknownName("attribute", attribute, known)
    logits = classifiers.logits(model["judge"], images, block)
    return logits[:, known.index(attribute)].sigmoid()


def accuracy(attribute: str) -> dict[str, float]:
    """How often the judge is right on held-out drawings with and without an attribute.

    Returns:
        `with` and `without`: shares; from the card, measured when the judge was trained.

    Raises:
        UnknownName: no such attribute.
    """
    table = models.load(CHECKPOINT).card["accuracy"]
    if attribute not in table:
        raise UnknownName("attribute", attribute, table)
    return dict(table[attribute])


def train(
    path: Path, *, seed: int = 0, images: int = 10_000, held_out: int = 3000, epochs: int = 6,
    batch: int = 64,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Trains the judge on drawings, writes it, returns its accuracy on held-out ones."""
    pool = data.load("drawn-faces", size=SIZE, split="train", n=images)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.derive(seed, "drawn_judge"))
        net = AttributeNet(len(pool.attribute_names)).to(memory_format=torch.channels_last)
        _fit(net.train(), data.to_float(pool.pixels), pool.attributes, epochs, batch, seed)
    test = data.load("drawn-faces", size=SIZE, split="test", n=held_out)
    with torch.no_grad():
        said = net.eval()(data.to_float(test.pixels)) > 0
    right = _shares(said, test.attributes, test.attribute_names)
    config = {"data": "drawn-faces", "size": SIZE, "attributes": list(pool.attribute_names),
              "epochs": epochs, "batch": batch}  # fmt: skip
    card = {"title": "judge of drawn faces, 32 px", "config": config, "seed": seed,
            "images": epochs * images, "accuracy": right, "test_images": held_out}  # fmt: skip
    recipe = {"net": "attributenet.AttributeNet", "options": {"attributes": len(right)}}
    models.save(path, {"judge": net.state_dict()}, {"judge": recipe}, card)
    return right


def _fit(
    net: torch.nn.Module, x: Images, y: Bool[Tensor, "N A"], epochs: int, batch: int, seed: int
) -> None:
    share = y.float().mean(0)
    weight = ((1 - share) / share.clamp(min=1e-3)).clamp(max=50)  # both answers count alike

    def loss(index: Tensor) -> Tensor:
        logits = net(_worsened(x[index]))
        wanted = y[index].to(logits)
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)

    classifiers.fit(net, len(x), loss, epochs=epochs, batch=batch, rate=3e-3, decay=1e-2, seed=seed)


def _worsened(x: Images) -> Images:
    """Each batch moved by up to 2 px, each image blurred and made noisy by chance."""
    n, like = len(x), {"device": x.device}
    x = classifiers.shifted(x)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x.lerp(blurred, torch.rand(n, 1, 1, 1, **like) * (torch.rand(n, 1, 1, 1, **like) < 0.6))
    noise = 0.15 * torch.rand(n, 1, 1, 1, **like) * torch.randn_like(x)
    return (x + noise).clamp(-1, 1)


def _shares(
    said: Bool[Tensor, "N A"], true: Bool[Tensor, "N A"], names: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    out = {}
    for k, name in enumerate(names):
        has = true[:, k]
        out[name] = {"with": round(said[has, k].float().mean().item(), 4),
                     "without": round((~said[~has, k]).float().mean().item(), 4)}  # fmt: skip
    return out


if __name__ == "__main__":
    target = paths.checkpoints() / f"{CHECKPOINT}.safetensors"
    print(f"{train(target)}, written to {paths.relative(target)}")
