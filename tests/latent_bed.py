"""A small smooth generator and critic in float64, for the tests of the latent searches."""

import torch
from torch import nn

from latentpapers.latent.pair import Pair
from latentpapers.latent.sphere import project

Z, SIDE, WIDTH = 24, 6, 20


def mlp(inputs, outputs, seed):
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs)).double()
    for p in net.parameters():
        shape = p.shape
        p.data = torch.randn(shape, generator=g, dtype=torch.float64) / shape[-1] ** 0.5
    return net.requires_grad_(False)


class Toy:
    """G: a tanh network on the projected latent. D: features and a minibatch deviation."""

    def __init__(self, seed=0, deviation=1.0):
        self.body, self.eyes = mlp(Z, 3 * SIDE * SIDE, seed), mlp(3 * SIDE * SIDE, WIDTH, seed + 1)
        g = torch.Generator().manual_seed(seed + 2)
        self.head = torch.randn(WIDTH + 1, generator=g, dtype=torch.float64)
        self.head[-1], self.sizes = deviation, []

    def generate(self, z):
        self.sizes.append(len(z))
        return self.body(project(z)).view(-1, 3, SIDE, SIDE)

    def features(self, x, group):
        seen = torch.tanh(self.eyes(x.flatten(1)))
        groups = seen.view(-1, group, WIDTH)
        var = groups.var(1) if group > 1 else torch.zeros_like(groups[:, 0])
        spread = (var + 1e-8).sqrt().mean(1) if group > 1 else var.mean(1)
        return torch.cat([seen, spread.repeat_interleave(group)[:, None]], 1)

    def score(self, x, group):
        return self.features(x, group) @ self.head

    def pair(self, **options):
        return Pair(self.generate, self.score, self.features, Z, **options)


def codes(n, seed=0, z=Z):
    g = torch.Generator().manual_seed(seed)
    return project(torch.randn(n, z, generator=g, dtype=torch.float64))
