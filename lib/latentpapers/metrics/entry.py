"""`lp.metrics.score`: one entry for every metric with a protocol id."""

from typing import Any

import torch
from torch import Tensor

from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import intervals, protocol
from latentpapers.metrics.protocol import Layout, Protocol, Score
from latentpapers.shapes import PerImage


def protocols() -> dict[str, Protocol]:
    """Every protocol that is built, by id; each metric module brings its own.

    Raises:
        UserError: two modules bring the same id.
    """
    from latentpapers.metrics import features, full_reference, inception, ma, niqe, perceptual

    modules: tuple[Any, ...] = (full_reference, ma, niqe, features, inception, perceptual)
    out: dict[str, Protocol] = {}
    for module in modules:
        if twice := out.keys() & module.PROTOCOLS.keys():
            raise UserError(f"{module.__name__} brings {sorted(twice)}, which another has.")
        out |= module.PROTOCOLS
    return out


def find(metric_id: str) -> Protocol:
    """The protocol of an id.

    Raises:
        UnknownName: no such id, or one that is not built yet.
    """
    known = protocols()
    if metric_id not in known:
        raise UnknownName("metric", metric_id, known)
    return known[metric_id]


def score(
    metric_id: str,
    images: Any,
    reference: Any = None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> Score:
    """A metric of images with its interval.

    Args:
        metric_id: protocol id of `ledger/metrics.yaml`.
        images: uint8 (N, H, W, C) or float (N, C, H, W) in [0, 1]; for per-image and paired
            metrics also a list of single images of different sizes; for metrics of groups one
            more leading axis, or a list of batches.
        reference: in the same forms; the ground truth (paired), the small input (`lr_rmse`), the
            real images (distributions). Argument order matters: precision is not recall.
        layout: where the axes are not in the order that the type implies.
        options: for metrics of distributions alone (`k`, `block`, …).

    Raises:
        UnknownName: no such metric. UserError: see `metrics.protocol.canonical`; a reference too
            much or missing; a single image or k >= n for a metric of distributions.
        Missing: a network or model that the metric needs.
    """
    found = find(metric_id)
    if found.kind == "distribution":
        return _distribution(found, images, reference, layout, options)
    measured = values(metric_id, images, reference, layout=layout, **options)
    return _summary(found, measured)


def values(
    metric_id: str,
    images: Any,
    reference: Any = None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> PerImage:
    """One value per image (or group), for `intervals.paired_difference` and for pictures.

    Args and errors: as `score`; metrics of distributions have no such values.
    """
    found = find(metric_id)
    if found.kind == "distribution":
        raise UserError(f"{metric_id} measures a set of images; it has no value per image.")
    _check_reference(found, reference)
    if found.kind == "groups":
        parts = protocol.groups(images, form=found.form, layout=layout)
        return torch.tensor([float(found.function(x, **options)) for x in parts]).double()
    parts = protocol.batches(images, form=found.form, layout=layout)
    if found.kind == "per_image":
        return torch.cat([found.function(x, **options).double().cpu() for x in parts])
    others = protocol.batches(reference, form=found.form, layout=layout, what="reference")
    pairs = zip(*_paired(found, parts, others), strict=True)
    return torch.cat([found.function(x, y, **options).double().cpu() for x, y in pairs])


def _check_reference(found: Protocol, reference: Any) -> None:
    if found.kind == "paired" and reference is None:
        raise UserError(f"{found.id} compares with a reference; pass it as the third argument.")
    if found.kind in ("per_image", "groups") and reference is not None:
        raise UserError(f"{found.id} takes no reference.")


def _paired(
    found: Protocol, images: list[Tensor], others: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    if len(images) != len(others):  # one is a batch, the other a list
        images, others = (
            [x for part in parts for x in part.split(1)] for parts in (images, others)
        )
    if sum(map(len, images)) != sum(map(len, others)):
        counts = sum(map(len, images)), sum(map(len, others))
        raise UserError(f"{counts[0]} images against {counts[1]} of reference.")
    for x, y in zip(images, others, strict=True):
        same = x.shape == y.shape if found.same_size else x.shape[:2] == y.shape[:2]
        if not same:
            raise UserError(f"image {tuple(x.shape[1:])} against reference {tuple(y.shape[1:])}.")
    return images, others


def _summary(found: Protocol, measured: Tensor) -> Score:
    if len(measured) == 1 and found.summary is None:
        reason = "none: one image" if found.kind != "groups" else "none: one group"
        return Score(float(measured[0]), None, None, 1, reason)
    return (found.summary or intervals.bootstrap_mean)(measured)


def _distribution(
    found: Protocol, images: Any, reference: Any, layout: Layout | None, options: dict[str, Any]
) -> Score:
    k = options.get("k")
    x = protocol.stacked(images, form=found.form, layout=layout)
    protocol.check_count(found, len(x), k)
    if reference is None:
        return found.function(x, None, **options)
    real = protocol.stacked(reference, form=found.form, layout=layout, what="reference")
    protocol.check_count(found, len(real), k, "reference")
    return found.function(x, real, **options)
