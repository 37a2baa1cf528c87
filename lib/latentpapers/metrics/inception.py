"""The Inception score over splits, as published, and its value without the bias of small samples.

exp(E_x KL(p(y | x) || p(y))) (Salimans et al. 2016). `is_tf2015_50k_s10` takes the 1008 outputs of
the Inception of 2015 without their bias, as OpenAI's code and torch-fidelity do. A split of n
images knows p(y) only roughly, which makes the score too small, by about 1/n on the log scale.
The score of any classifier, with a bootstrap over images, is in `inception_score`.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics import extrapolation, features, intervals
from latentpapers.metrics.protocol import Protocol, Score
from latentpapers.shapes import Logits


def split_score(logits: Logits, *, splits: int = 10, seed: int | None = 0) -> Score:
    """Mean of the scores of `splits` parts, with a t interval over the parts.

    Args:
        logits: (N, K), before the softmax.
        splits: equal parts (their sizes differ by at most one).
        seed: of the shuffle; None keeps the order.

    Raises:
        UserError: another shape, NaN, or fewer than 2 images a split.
    """
    x = _checked(logits, splits)
    if seed is not None:
        order = seeds.numpy(seed, "inception", "shuffle").permutation(len(x))
        x = x[torch.from_numpy(order).to(x.device)]
    edges = [i * len(x) // splits for i in range(splits + 1)]
    parts = [_score(x[a:b]) for a, b in itertools.pairwise(edges)]
    value = sum(parts) / splits
    biased = f"biased downwards at {len(x) // splits} images a split"
    if splits == 1:
        return Score(value, None, None, len(x), f"none: one split; {biased}")
    spread = float(torch.tensor(parts).double().std()) / math.sqrt(splits)
    low, high = extrapolation.around(value, spread, splits)
    return Score(value, max(low, 1.0), high, len(x), f"t over {splits} splits, 95 %; {biased}")


def score_infinity(logits: Logits, *, sizes: int = 6, seed: int = 0) -> Score:
    """The score at infinitely many images, extrapolated in 1/n (Chong and Forsyth 2020).

    Args:
        logits: as in `split_score`.
        sizes: number of subset sizes, see `intervals.subset_extrapolation`.

    Raises:
        UserError: as `split_score` and `intervals.subset_extrapolation`.
    """
    x = _checked(logits, 1)

    def measure(index: np.ndarray) -> float:
        return _score(x[torch.from_numpy(index).to(x.device)])

    return intervals.subset_extrapolation(measure, len(x), sizes=sizes, seed=seed)


def _score(logits: Tensor) -> float:
    """exp of the mean divergence of each row from the mean row."""
    logs = logits.log_softmax(1)
    rows = logs.exp()
    return float((rows * (logs - rows.mean(0).log())).sum(1).mean().exp())


def _checked(logits: Tensor, parts: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        form = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise UserError(f"the Inception score takes float logits (N, K), not {form}.")
    if not bool(logits.isfinite().all()):
        raise UserError("the logits hold NaN or infinity.")
    if parts < 1 or len(logits) < 2 * parts:
        raise UserError(f"{len(logits)} images do not make {parts} parts of at least 2.")
    return logits.detach().double()


def _tf2015(images: Tensor, reference: Tensor | None, **options: object) -> Score:
    if reference is not None:
        raise UserError("the Inception score takes no reference.")
    found = features.extract(images, "inception_tf2015", layer="logits_unbiased", **options)
    return split_score(found)


PROTOCOLS = {
    "is_tf2015_50k_s10": Protocol(
        "is_tf2015_50k_s10", "distribution", _tf2015, ("inception_tf2015",), n=50_000
    )
}
"""Inception scores by protocol id."""
