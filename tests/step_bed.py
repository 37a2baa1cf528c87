"""What the tests of training steps share: networks in float64, gradients by plain autograd."""

import torch

from latentpapers.train.context import Context

ROUNDING = 1e-9  # relative, of float64 sums over a few thousand terms in another order


def context(step=0, batch=4):
    return Context(0, step, torch.device("cpu"), batch, 0, batch)


def doubled(step, images=0):
    """A task in float64, ready for the step after so many images."""
    for net in step.nets.values():
        net.double()
    step.before_step(0, images)
    return step


def parameters(step):
    return {
        name: [p for g in o.param_groups for p in g["params"]]
        for name, o in step.optimizers().items()
    }


def gradients(loss, params):
    return torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            assert torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * float(b.abs().max() + 1e-3))
