"""The digit classifier behind `is_digitsnet_n5000`: how it is applied and how it was trained.

`python -m latentpapers.metrics.digits_classifier` trains it anew (two minutes of CPU) and writes
results/checkpoints/metrics/digitsnet.safetensors with its test accuracy.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers import data, models, paths, seeds
from latentpapers.metrics import classifiers
from latentpapers.nets.digitsnet import DigitsNet
from latentpapers.shapes import Images, Labels

CHECKPOINT = "metrics/digitsnet"


def probabilities(images: Images, *, block: int = 100) -> Float[Tensor, "N 10"]:
    """p(y | x) of the shipped classifier.

    Args:
        images: (N, 1, 32, 32) in [-1, 1].
        block: images a forward pass; 100 stay in a core's cache. It does not change the result
            beyond rounding.

    Raises:
        UserError: another shape, or values outside [-1, 1].
    """
    x = classifiers.checked(images, 1, "digitsnet").contiguous(memory_format=torch.channels_last)
    net = models.load(CHECKPOINT)["classifier"].to(memory_format=torch.channels_last)
    return classifiers.logits(net, x, block).softmax(1)


def train(path: Path, *, seed: int = 0, epochs: int = 12, batch: int = 64) -> float:
    """Trains the classifier on the 4,000 training digits; writes it; returns its test accuracy."""
    train_set, test_set = (data.load("digits", size=32, split=s) for s in ("train", "test"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.derive(seed, "digitsnet"))
        net = DigitsNet(**_RECIPE["options"]).train()  # its first weights come from the seed too
        _fit(net, data.to_float(train_set.pixels), train_set.labels, epochs, batch, seed)
    accuracy = _accuracy(net.eval(), data.to_float(test_set.pixels), test_set.labels)
    card = {
        "title": "digit classifier, 32 px",
        "config": {"data": "digits", "epochs": epochs, "batch": batch},
        "seed": seed, "images": epochs * len(train_set), "test_accuracy": round(accuracy, 4),
        "test_images": len(test_set),
    }  # fmt: skip
    models.save(path, {"classifier": net.state_dict()}, {"classifier": _RECIPE}, card)
    return accuracy


_RECIPE = {"net": "digitsnet.DigitsNet", "options": {"width": 16}}


def _fit(net: torch.nn.Module, x: Images, y: Labels, epochs: int, batch: int, seed: int) -> None:
    def loss(index: Tensor) -> Tensor:
        said = net(classifiers.shifted(x[index]))
        return F.cross_entropy(said, y[index].long(), label_smoothing=0.05)

    classifiers.fit(net, len(x), loss, epochs=epochs, batch=batch, rate=3e-3, decay=1e-2, seed=seed)


def _accuracy(net: torch.nn.Module, x: Images, y: Labels) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


if __name__ == "__main__":
    target = paths.checkpoints() / f"{CHECKPOINT}.safetensors"
    print(f"test accuracy {train(target):.4f}, written to {paths.relative(target)}")
