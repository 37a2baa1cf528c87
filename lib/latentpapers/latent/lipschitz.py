"""Lipschitz constants: of piecewise linear functions on an interval, of networks around a point.

From LSRGAN's appendices A and B (one dimension) and section 2 (eq 3). A piecewise linear function
is given by its nodes x_0 < ... < x_n and its values there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError

Points = Float[Tensor, "P"]


def piecewise_linear(x: Points, nodes: Points, values: Points) -> Points:
    """Eq 17: the function that runs straight from node to node, at `x`.

    Args:
        x: places inside [x_0, x_n].
        nodes, values: strictly increasing places, and the function there.

    Raises:
        UserError: nodes that do not increase, or places outside.
    """
    _increasing(nodes, values)
    if len(x) and (x.min() < nodes[0] or x.max() > nodes[-1]):
        raise UserError("a piecewise linear function is known between its first and last node.")
    i = (torch.searchsorted(nodes, x.contiguous(), right=True) - 1).clamp(0, len(nodes) - 2)
    share = (x - nodes[i]) / (nodes[i + 1] - nodes[i])
    return values[i] + share * (values[i + 1] - values[i])


def node_count(length: float, lipschitz: float, epsilon: float) -> int:
    """Eq 23: how many equal segments make each at most epsilon / (3 K) long.

    Raises:
        UserError: a length, constant or epsilon that is not positive.
    """
    if not (length > 0 and lipschitz > 0 and epsilon > 0):
        raise UserError(f"all of {length}, {lipschitz} and {epsilon} must be positive.")
    return max(1, -int(-(3 * lipschitz * length) // epsilon))


def slopes(nodes: Points, values: Points) -> Points:
    """s_k of eq 28: one a segment.

    Raises:
        UserError: nodes that do not increase.
    """
    _increasing(nodes, values)
    return values.diff() / nodes.diff()


def sum_of_slopes(nodes: Points, values: Points) -> float:
    """Eq 29's constant: the sum of all |s_k|. Grows without limit as nodes are added."""
    return float(slopes(nodes, values).abs().sum())


def largest_slope(nodes: Points, values: Points) -> float:
    """max |s_k|: the smallest constant there is (our remark on eq 29)."""
    return float(slopes(nodes, values).abs().max())


def _increasing(nodes: Points, values: Points) -> None:
    if len(nodes) < 2 or nodes.shape != values.shape or not bool((nodes.diff() > 0).all()):
        raise UserError("nodes must increase, be at least two, and have one value each.")


def local_constant(
    function: Callable[[Tensor], Tensor], x: Tensor, *, iterations: int = 20, seed: int = 0
) -> Float[Tensor, "N"]:
    """The largest stretch |J v| / |v| of a map around each input: its local Lipschitz constant.

    Power iteration on J^T J with products alone; for a piecewise linear map exact inside a piece.
    Approached from below: more iterations can only raise it.

    Args:
        function: treats the N inputs of a batch independently.
        x: (N, ...).
        iterations: rounds, each of one product with J and one with J^T.
        seed: of the first direction.

    Returns:
        (N,): Euclidean norms.

    Raises:
        UserError: no iteration.
    """
    if iterations < 1:
        raise UserError(f"power iteration needs at least one round, not {iterations}.")
    x = x.detach().requires_grad_()
    g = torch.Generator().manual_seed(seed)
    v = _unit(torch.randn(x.shape, generator=g).to(x))
    with torch.enable_grad():
        y = function(x)
        dummy = torch.zeros_like(y, requires_grad=True)
        # J^T u as a function of u; differentiating it by u gives J v
        (pulled,) = torch.autograd.grad(y, x, dummy, create_graph=True)
        stretch = x.new_zeros(len(x))
        for _ in range(iterations):
            (pushed,) = torch.autograd.grad(pulled, dummy, v, retain_graph=True)
            stretch = _norm(pushed)
            (back,) = torch.autograd.grad(y, x, pushed, retain_graph=True)
            v = _unit(back)
    return stretch.detach()


def _norm(x: Tensor) -> Float[Tensor, "N"]:
    return x.flatten(1).square().sum(1).sqrt()


def _unit(x: Tensor) -> Tensor:
    size = _norm(x).clamp_min(1e-30)
    return x / size.view(-1, *[1] * (x.ndim - 1))
