"""The searches of "Diamond in the rough" as loops to read: one batch, one step after another.

A batch may be a single latent vector. `inversion` and `walk` do the same for all at once; tests
hold the two equal.
"""

import torch
from torch import Tensor

from latentpapers.latent import inversion, walk
from latentpapers.latent.inversion import Inversion
from latentpapers.latent.pair import Pair, statistic_group
from latentpapers.latent.sphere import cosine, project
from latentpapers.latent.walk import Proto, Sigma
from latentpapers.shapes import Codes, Features, Images, PerImage


def settled(history: list[float], tolerance: float) -> bool:
    """Whether the last loss differs from the one before by less than the tolerance."""
    return len(history) > 1 and abs(history[-1] - history[-2]) < tolerance


def set_rate(adam: torch.optim.Adam, rate: float, step: int, every: int) -> None:
    """Divides Adam's rate by ten every so many steps; `every` 0 keeps it."""
    adam.param_groups[0]["lr"] = rate * 0.1 ** (step // every if every else 0)


def invert(pair: Pair, image: Images, candidates: Codes, judged: Features, how: Inversion) -> Codes:
    """z_1 of one batch of images (section 3.1): the nearest candidate, then Adam on eq 5.

    Args:
        image: (B, C, H, W).
        candidates, judged: (K, Z) random codes and the critic's features (K, F) of their images.
    """
    wanted = pair.alone(image)
    z = inversion.nearest_candidates(wanted, candidates, judged).clone().requires_grad_()
    adam, history = torch.optim.Adam([z], lr=how.descent.rate), []
    group = 1 if how.statistic == "alone" else statistic_group(len(image))
    for step in range(how.descent.steps):
        set_rate(adam, how.descent.rate, step, how.descent.decay_every)
        made = pair.generate(z)
        seen = pair.features(made, group)
        pixel = inversion.pixel_distance(made, image, reduction=how.reduction)
        feature = inversion.feature_distance(seen, wanted, reduction=how.reduction)
        shell = inversion.shell_distance(z, reading=how.shell or how.reading)
        loss = inversion.inversion_loss(
            pixel, feature, shell, alpha=how.alpha, beta=how.beta, reading=how.reading
        ).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        history.append(float(loss.detach()))
        if settled(history, how.descent.tolerance):
            break
    return project(z.detach())


def protoimage(pair: Pair, z0: Codes, z1: Codes, how: Proto) -> list[Codes]:
    """Algorithm 1 for one batch: every point of its path, z_0 and z_1 first, z_p last."""
    path = [z0, z1]
    q = (torch.ones_like(z0) if how.start == "ones" else z1 - z0).clone().requires_grad_()
    adam, history = torch.optim.Adam([q], lr=how.descent.rate), []
    for step in range(how.descent.steps):
        set_rate(adam, how.descent.rate, step, how.descent.decay_every)
        new = walk.directed_step(path[-2], path[-1], q, reading=how.step)
        scores = pair.score(pair.generate(new), statistic_group(len(z0)))
        similar = cosine(new, z0)
        similar = similar.abs() if how.cosine == "absolute" else similar
        loss = scores.mean() + how.weight * similar.mean()
        if how.score_spread or how.cosine_spread:
            loss = loss + how.score_spread * scores.std() + how.cosine_spread * similar.std()
        adam.zero_grad()
        loss.backward()
        adam.step()
        path.append(new.detach())
        history.append(float(loss.detach()))
        length = float((path[-1] - path[-2]).norm(dim=1).max())
        if how.descent.stop == "below" and length < how.descent.tolerance:
            break
        if how.descent.stop == "change" and settled(history, how.descent.tolerance):
            break
    return path


def weights(pair: Pair, z0: Codes, zp: Codes, how: Sigma) -> PerImage:
    """The weights sigma of one batch (eq 9)."""
    sigma = z0.new_full((len(z0),), how.start).requires_grad_()
    adam, history = torch.optim.Adam([sigma], lr=how.descent.rate), []
    for step in range(how.descent.steps):
        set_rate(adam, how.descent.rate, step, how.descent.decay_every)
        images = pair.generate(walk.interpolate(z0, zp, sigma))
        scores = pair.score(images, statistic_group(len(z0)))
        loss = _aim(scores, how)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            sigma.clamp_(how.low, how.high)
        history.append(float(loss.detach()))
        if settled(history, how.descent.tolerance):
            break
    return sigma.detach()


def _aim(scores: PerImage, how: Sigma) -> Tensor:
    if how.aim == "highest":
        return -scores.mean()
    loss = (scores - how.target).square().mean()
    return loss + how.spread * scores.var() if how.spread else loss
