"""What the papers' identity tests share: float64 draws, comparison, gradients, and the control.

Every comparison in those tests is a function of the implementation under test, so that `refused`
can put a mutant (a flipped sign, another reading, a slip of the paper) through the same comparison.
"""

import numpy as np
import pytest
import torch

EXACT = 1e-12  # float64: a few hundred additions round to about 1e-14


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(value, reference, tolerance=EXACT):
    value, reference = (
        np.asarray(v.detach() if isinstance(v, torch.Tensor) else v, np.float64)
        for v in (value, reference)
    )
    np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance)


def refused(comparison, *mutants):
    for mutant in mutants:
        with pytest.raises(AssertionError):
            comparison(mutant)


def gradient(function, *inputs):
    leaves = [i.clone().requires_grad_() for i in inputs]
    return torch.autograd.grad(function(*leaves), leaves)


def central_difference(function, x, h=1e-5):
    """Good to h^2 = 1e-10 times the third derivative."""
    out = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = torch.zeros_like(x)
        step[index] = h
        out[index] = (function(x + step) - function(x - step)) / (2 * h)
    return out
