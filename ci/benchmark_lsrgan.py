"""LSRGAN's share of `make benchmark`: the contextual loss, the joint training step, inference.

`python ci/benchmark_lsrgan.py` also prints the contextual loss's peak memory, and the whole-set
inference with metrics where the 23-block weights and Set14 are on this machine.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from latentpapers import data, weights
from latentpapers.losses.contextual import contextual
from latentpapers.nets.rrdb import RRDBNet, tiled
from latentpapers.papers import lsrgan
from latentpapers.train.context import Context
from latentpapers.weights import rrdb

Pair = tuple[Callable[[], object], Callable[[], object]]


def plain_contextual(x: torch.Tensor, y: torch.Tensor, h: float = 0.5) -> torch.Tensor:
    """Eq 12 with the whole matrix of every image at once."""
    r = y.mean((0, 2, 3), keepdim=True)
    x, y = ((m - r).flatten(2).transpose(1, 2) for m in (x, y))
    x, y = (m / m.norm(dim=2, keepdim=True) for m in (x, y))
    d = (1 - x @ y.transpose(1, 2)).clamp_min(0)
    near = d / (d.min(2, keepdim=True).values + 1e-5)
    return -torch.softmax((1 - near) / h, 2).max(1).values.mean(1).log().mean()


def _maps() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(16, 256, 32, 32, generator=g) for _ in range(2)]


def contextual_loss() -> Pair:
    """16 x 1024 points x 256 channels, forward and backward: in blocks against whole matrices."""
    x, y = _maps()
    x.requires_grad_()

    def run(loss: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(x, y), x)

    return run(contextual), run(plain_contextual)


def joint_step(width: int = 32, blocks: int = 2, crop: int = 64, batch: int = 8) -> Pair:
    """The joint stage: half precision and channels-last against eager fp32 as PyTorch has it by
    default. fp16 as in the gpu preset; bf16 on a CPU, which has no products of fp16."""
    device, half = "cuda" if torch.cuda.is_available() else "cpu", "bf16"
    if device == "cuda":
        width, blocks, crop, batch, half = 64, 23, 128, 16, "fp16"
    job = lsrgan.Training("joint", "none", crop, 1, batch=batch, variant="lsr", width=width,
                          blocks=blocks, growth=width // 2, critic_width=width,
                          features="random")  # fmt: skip
    g = torch.Generator().manual_seed(0)
    hr = [torch.randint(256, (3, 256, 256), generator=g, dtype=torch.uint8) for _ in range(4)]
    bank = data.PairBank(hr, [lsrgan.reduced(x) for x in hr], 4, device)

    def one(precision: str, layout: torch.memory_format) -> Callable[[], object]:
        step = lsrgan.Step(replace(job, precision=precision), 0, bank,
                           lsrgan.feature_network(job, device))  # fmt: skip
        for net in step.nets.values():
            net.to(device, memory_format=layout)
        params = {name: list(net.parameters()) for name, net in step.nets.items()}

        def run() -> None:
            ctx = Context(0, 0, torch.device(device), batch, 0, batch, precision)
            for group in step.updates(torch.empty(0), ctx):
                for name, loss in group.items():
                    torch.autograd.grad(loss, params[name], retain_graph=True)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return one(half, torch.channels_last), one("fp32", torch.contiguous_format)


CASES = {
    "contextual loss 16 x 1024 x 256, blocks / whole matrix": contextual_loss,
    "LSRGAN joint step, half precision, channels-last / eager fp32": joint_step,
}


def _peak(which: str) -> None:
    """Runs one loss in this process and prints the memory it added, in MB."""
    x, y = _maps()
    x.requires_grad_()
    loss = contextual if which == "ours" else plain_contextual
    torch.autograd.grad(loss(x[:1, :, :4, :4], y[:1, :, :4, :4]), x)  # loads libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.autograd.grad(loss(x, y), x)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def contextual_memory() -> None:
    """Peak extra memory of both, each in a process of its own."""
    both = [float(subprocess.run([sys.executable, __file__, "--peak", which], check=True,
                                 capture_output=True, text=True).stdout)
            for which in ("ours", "plain")]  # fmt: skip
    print(f"contextual loss, peak extra memory: {both[0]:.0f} MB in blocks, {both[1]:.0f} MB whole")


def trunk_tiles(tile: int = 32, halos: tuple[int, ...] = (0, 8, 16, 24)) -> None:
    """What cutting the 23-block trunk costs, on the smallest picture of Set5."""
    if not weights.available("realsr_df2k"):
        return
    pair = min(lsrgan.evaluation_pairs("set5"), key=lambda p: p.lr.numel())
    x = pair.lr[None].float() / 255
    net = rrdb.network(weights.load("realsr_df2k")).to(memory_format=torch.channels_last)
    with torch.no_grad():
        whole = net(x)
    for halo in halos:
        gap = (tiled(net, x, trunk_tile=tile, trunk_halo=halo) - whole).abs()
        sizes = f"{float(gap.max()):.4f}, mean {float(gap.mean()):.5f} (image range [0, 1])"
        print(f"23 blocks, trunk in tiles of {tile} px, halo {halo}: largest error {sizes}")


def whole_set(name: str = "set14") -> None:
    """x4 of a whole test set by the 23-block network, with PSNR and SSIM."""
    if not weights.available("realsr_df2k"):
        print("the 23-block weights realsr_df2k are not on this machine")
        return
    pairs = lsrgan.evaluation_pairs(name)
    net: RRDBNet = rrdb.network(weights.load("realsr_df2k"))
    net = net.to(memory_format=torch.channels_last)
    start, cpu = time.perf_counter(), time.process_time()
    found = lsrgan.enlarged(net, pairs)
    values = lsrgan.evaluate(found, pairs, ("PSNR", "SSIM"))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name}, 23 blocks, {torch.get_num_threads()} thread(s): {wall:.0f} s ({cpu:.0f} s of CPU)"
        f", peak {peak:.1f} GB; PSNR {float(values['PSNR'].mean()):.2f} dB, "
        f"SSIM {float(values['SSIM'].mean()):.3f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        _peak(sys.argv[2])
    else:
        contextual_memory()
        trunk_tiles()
        whole_set()
