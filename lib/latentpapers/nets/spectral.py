"""Convolutions of spectral norm one whose power iteration is a step of its own.

torch's parametrisation iterates in every forward pass of a network in training mode: the result
then depends on how often a network is called, so that micro-batches change it. Here networks stay
in evaluation mode and `iterate` refreshes all norms once, before the step's first pass; every pass
of a step sees the same weights, and `folded` turns them into plain convolutions for good.
"""

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

ITERATIONS = 4  # a training step; the authors' generator makes one in each of its four passes
_ORIGINAL, _U, _V = (f"parametrizations.weight.{name}" for name in ("original", "0._u", "0._v"))


def conv(
    inputs: int, outputs: int, side: int, *, bias: bool = True, padding: int | None = None,
    spectral: bool = True,
) -> nn.Conv2d:  # fmt: skip
    """A convolution of stride 1 and zero bias, spectrally normalised or plain.

    Args:
        inputs, outputs: channels.
        side: of the kernel; `padding` keeps the size unless given.
        spectral: False builds what `folded` fills.
    """
    made = nn.Conv2d(
        inputs, outputs, side, padding=side // 2 if padding is None else padding, bias=bias
    )
    if bias:
        nn.init.zeros_(made.bias)
    return bounded(made) if spectral else made


def bounded(made: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with spectral norm one, whatever its weights started from."""
    return spectral_norm(made, n_power_iterations=ITERATIONS)


def _normalised(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if parametrize.is_parametrized(m, "weight")]


@torch.no_grad()
def iterate(net: nn.Module) -> None:
    """`ITERATIONS` of the power method for every normalised layer; the norms are then held.

    Layers of one shape are iterated together: a product for each of them is a call of its own, and
    on a GPU the calls, not their arithmetic, would take the time.
    """
    alike: dict[torch.Size, list[nn.Module]] = {}
    for module in _normalised(net):
        module.parametrizations.eval()
        shape = module.parametrizations.weight.original.shape
        alike.setdefault(shape, []).append(module.parametrizations.weight)
    for layers in alike.values():
        weights = torch.stack([layer.original.flatten(1) for layer in layers])
        us, vs = ([getattr(layer[0], name) for layer in layers] for name in ("_u", "_v"))
        u, v = _iterated(weights, torch.stack(vs))
        torch._foreach_copy_(us + vs, [*u, *v])


def _iterated(weights: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors (L, O) and (L, K) of matrices (L, O, K), from the right ones before."""
    v = v.unsqueeze(-1)
    for _ in range(ITERATIONS):
        u = nn.functional.normalize(weights @ v, dim=1)
        v = nn.functional.normalize(weights.mT @ u, dim=1)
    return u.squeeze(-1), v.squeeze(-1)


@contextlib.contextmanager
def held(net: nn.Module) -> Iterator[nn.Module]:
    """Within, the normalised weights of `net` are computed once, in full precision.

    Passes share the graph of W / sigma(W). Nothing may change the weights before the end.
    """
    with parametrize.cached():
        for module in _normalised(net):
            original = module.parametrizations.weight.original
            with torch.autocast(original.device.type, enabled=False):
                _ = module.weight
        yield net


def folded(state: dict[str, Tensor], *, iterations: int = 30) -> dict[str, Tensor]:
    """A state dict with every normalised weight written out: W / sigma(W), under its plain name.

    Sigma is computed anew: the singular vectors of a *running average* are no average of singular
    vectors, and averaged unit vectors are too short, which would enlarge the weights.

    Args:
        state: of a network with `conv(spectral=True)` layers.
        iterations: of the power method, from the vectors in `state`.
    """
    plain = {}
    for name, value in state.items():
        if name.endswith(_ORIGINAL):
            stem = name.removesuffix(_ORIGINAL)
            sigma = spectral_radius(value, state[stem + _V], iterations)
            plain[f"{stem}weight"] = value / sigma
        elif not name.endswith((_U, _V)):
            plain[name] = value
    return plain


@torch.no_grad()
def spectral_radius(weight: Tensor, start: Tensor, iterations: int) -> Tensor:
    """The largest singular value of a convolution's weight as a matrix (outputs, rest).

    Args:
        start: a first right singular vector, of any length but zero.
    """
    matrix, v = weight.flatten(1), start
    for _ in itertools.repeat(None, iterations):
        v = nn.functional.normalize(matrix.mT @ (matrix @ v), dim=0)
    return (matrix @ v).norm()
