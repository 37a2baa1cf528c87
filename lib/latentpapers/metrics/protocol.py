"""What a metric is here: an id, what it takes, and a score with an interval; and the typed entry.

Images come as uint8 (N, H, W, C) or as floats (N, C, H, W) in [0, 1], nothing else: a wrong range,
type or layout changes most metrics without an error, so it is refused where the images enter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentpapers.errors import UserError

Kind = Literal["per_image", "paired", "distribution", "groups"]
Form = Literal["uint8", "float"]
Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval.

    Attributes:
        value: the number.
        low, high: ends of the interval; None if there is none, and `method` says why.
        n: size of the sample behind the interval.
        method: how the interval was made, or `none: <reason>`.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


@dataclass(frozen=True)
class Protocol:
    """One measurement protocol of `ledger/metrics.yaml` and the function that carries it out.

    Attributes:
        id: the name that rows carry.
        kind: what `function` takes and returns, images always (N, C, H, W) in `form`:
            per_image: (images) -> (N,) values;
            paired: (images, reference) -> (N,) values;
            distribution: (images, reference or None, **options) -> Score;
            groups: (images of one group) -> one number, e.g. a mean over pairs of ten outputs.
        function: see `kind`.
        needs: names of the weight files it cannot do without (`latentpapers.weights`).
        form: uint8, or float32 (float64 stays) in [0, 1].
        n: number of images that the id prescribes, None for any.
        k: nearest neighbour used, so that fewer images than k + 1 are refused.
        same_size: paired images must have one size (false where the reference is a small input).
        summary: values -> Score for all kinds but distribution; None is a bootstrap of the mean.
    """

    id: str
    kind: Kind
    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
    form: Form = "uint8"
    n: int | None = None
    k: int | None = None
    same_size: bool = True
    summary: Callable[[Tensor], Score] | None = None


def canonical(images: Any, *, form: Form, layout: Layout | None = None, what: str = "") -> Tensor:
    """Checked images as one batch in one form.

    Args:
        images: array or tensor, uint8 (N, H, W, C) or float (N, C, H, W) in [0, 1]; C is 1 or 3.
        form: uint8 rounds floats to the nearest of 256 levels (halves to even); float divides
            bytes by 255.
        layout: says that the axes are in another order than the type implies.
        what: named in errors (`reference`).

    Returns:
        (N, C, H, W), uint8 or float32 (float64 stays), detached, on the device it came on.

    Raises:
        UserError: another type, number of axes, layout or range; NaN; no image.
    """
    what = what or "images"
    x = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    if not isinstance(x, Tensor):
        raise UserError(f"{what} must be an array or tensor, not {type(images).__name__}.")
    x = x.detach()
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise UserError(f"{what} must be uint8 or float in [0, 1], not {x.dtype}.")
    x = _channels_first(x, layout or ("NHWC" if x.dtype == torch.uint8 else "NCHW"), what)
    if x.dtype == torch.uint8:
        return x if form == "uint8" else x.float() / 255
    _check_range(x, what)
    x = x if x.dtype == torch.float64 else x.float()
    return (x * 255).round().to(torch.uint8) if form == "uint8" else x


def _channels_first(x: Tensor, layout: str, what: str) -> Tensor:
    if layout not in ("NHWC", "NCHW"):
        raise UserError(f"layout {layout!r} is neither NHWC nor NCHW.")
    channels = 3 if layout == "NHWC" else 1
    if x.ndim != 4 or x.shape[channels] not in (1, 3):
        raise UserError(
            f"{what} of {x.dtype} are read as {layout} with 1 or 3 channels, which {tuple(x.shape)}"
            " is not; pass layout='NCHW' or layout='NHWC' if the axes are in the other order."
        )
    if not x.numel():
        raise UserError(f"{what} are empty: {tuple(x.shape)}.")
    return x.movedim(3, 1) if layout == "NHWC" else x


def _check_range(x: Tensor, what: str) -> None:
    low, high = float(x.min()), float(x.max())  # NaN if there is one
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{what} hold NaN or infinity.")
    if low < 0 or high > 1:
        raise UserError(
            f"{what} must lie in [0, 1], not [{low:.3g}, {high:.3g}]; clamp outputs, map [-1, 1] "
            "with (x + 1) / 2, divide 0..255 by 255."
        )


def batches(
    images: Any, *, form: Form, layout: Layout | None = None, what: str = ""
) -> list[Tensor]:
    """Batches of images, each of one size.

    Args:
        images: what `canonical` takes (one batch), or a list or tuple of single images of any
            sizes, each (H, W, C) uint8, (C, H, W) float, or with a leading axis of 1.

    Returns:
        one (N, C, H, W) for a batch, N times (1, C, H, W) for a list.

    Raises:
        UserError: as `canonical`, or an empty list.
    """
    if not isinstance(images, list | tuple):
        return [canonical(images, form=form, layout=layout, what=what)]
    if not images:
        raise UserError(f"{what or 'images'} are empty.")
    out = [
        canonical(_one(x), form=form, layout=layout, what=f"{what or 'images'}[{i}]")
        for i, x in enumerate(images)
    ]
    if any(len(x) != 1 for x in out):
        raise UserError(f"a list of {what or 'images'} holds single images, not batches.")
    return out


def _one(x: Any) -> Any:
    return x[None] if getattr(x, "ndim", 0) == 3 else x


def stacked(images: Any, *, form: Form, layout: Layout | None = None, what: str = "") -> Tensor:
    """Images of one size as one batch; a list of single images is joined.

    Raises:
        UserError: as `batches`, or several sizes.
    """
    parts = batches(images, form=form, layout=layout, what=what)
    sizes = {tuple(x.shape[1:]) for x in parts}
    if len(sizes) > 1:
        raise UserError(f"{what or 'images'} of several sizes {sorted(sizes)}; resize them first.")
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def groups(images: Any, *, form: Form, layout: Layout | None = None) -> list[Tensor]:
    """Groups of at least two images: a 5-axis array, or a list of batches.

    Raises:
        UserError: as `canonical`, a group of one image, no group.
    """
    parts: Sequence[Any] = images if isinstance(images, list | tuple) else list(images)
    if not parts:
        raise UserError("there is no group of images.")
    out = [canonical(x, form=form, layout=layout, what=f"group {i}") for i, x in enumerate(parts)]
    if min(map(len, out)) < 2:
        raise UserError("a group needs at least 2 images.")
    return out


def check_count(protocol: Protocol, n: int, k: int | None = None, what: str = "images") -> None:
    """Refuses too few images for a metric of distributions.

    Args:
        protocol: its `n` is exact for the images measured.
        n: how many there are.
        k: neighbour used, where not the protocol's own.

    Raises:
        UserError: one image, k >= n, or another number than the id says.
    """
    k = k if k is not None else protocol.k
    if n < 2:
        raise UserError(f"{protocol.id} compares distributions; {n} of {what} is not one.")
    if k is not None and not 1 <= k < n:
        raise UserError(f"{protocol.id} needs 1 <= k < n, not k = {k} with {n} of {what}.")
    if what == "images" and protocol.n is not None and n != protocol.n:
        raise UserError(
            f"{protocol.id} is defined on {protocol.n:,} images, not {n:,}; another number of "
            "images is another protocol."
        )
