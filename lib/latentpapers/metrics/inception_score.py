"""The Inception score of any classifier's probabilities, with its interval and its bias.

exp(E_x KL(p(y | x) || p(y))) (Salimans et al. 2016; AVAE section 5.3). What makes a number
comparable is the classifier, the number of samples and the splits: they are in the protocol id.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics.protocol import Score


def inception_score(
    probabilities: Float[Tensor, "N K"], *, resamples: int = 200, seed: int = 0
) -> Score:
    """The score of N images from their class probabilities, over all samples at once.

    The interval is a percentile bootstrap over images, re-centred on the value: resampling
    repeats images, which makes p(y) less even and so shifts the resamples, but not their spread.

    Args:
        probabilities: rows that sum to 1.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: fewer than 2 images, or rows that are not distributions.
    """
    p = _checked(probabilities)
    value = float(_score(p, np.ones((1, len(p))))[0])
    rng = seeds.numpy(seed, "bootstrap", "inception_score")
    counts = rng.multinomial(len(p), np.full(len(p), 1 / len(p)), size=resamples)
    draws = _score(p, counts)
    centre = np.median(draws)
    low, high = np.quantile(draws, [0.025, 0.975]) - centre + value
    return Score(value, float(low), float(high), len(p), "bootstrap over images, 95 %")


def _score(p: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Scores of weighted samples; counts (R, N). E KL = sum_k marginal entropy - mean entropy."""
    weights = counts / counts.sum(1, keepdims=True)
    entropies = -_xlogx(p).sum(1)
    marginal = weights @ p
    return np.exp(-_xlogx(marginal).sum(1) - weights @ entropies)


def _xlogx(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0)


def _checked(probabilities: Tensor) -> np.ndarray:
    p = np.asarray(probabilities.detach().cpu().double())
    if p.ndim != 2 or len(p) < 2:
        raise UserError(
            f"the Inception score needs at least 2 rows of probabilities, not {p.shape}."
        )
    # 1e-4: float32 softmax over a thousand classes sums to 1 within that
    if not np.isfinite(p).all() or (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-4:
        raise UserError("the Inception score needs probabilities: rows >= 0 that sum to 1.")
    return p
