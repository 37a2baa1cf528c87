"""One process or many: averages by hand, never DistributedDataParallel.

DDP with a second backward (R1, gradient penalty) gives silently wrong gradients, and
`static_graph` too (both measured); summing `.grad` by hand is always right.
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from latentpapers.shapes import Features, Scalar


@dataclass(frozen=True)
class Group:
    """The processes that share one training: this one's `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def mean(self, tensor: Tensor) -> Tensor:
        """The average over processes (a new tensor; the same one if there is only one process)."""
        if self.world == 1:
            return tensor
        out = tensor.clone()
        torch.distributed.all_reduce(out)
        return out / self.world

    def mean_(self, tensors: list[Tensor]) -> None:
        """Averages many tensors in place, in one message."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool, device: torch.device | str = "cpu") -> bool:
        """Whether any process says so; all of them get the same answer."""
        if self.world == 1:
            return flag
        out = torch.tensor(float(flag), device=device)
        torch.distributed.all_reduce(out)
        return bool(out > 0)


def single() -> Group:
    """No other process."""
    return Group()


def join() -> Group:
    """The group that torchrun describes in the environment; a single process without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Group()
    if not torch.distributed.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    return Group(torch.distributed.get_rank(), world)


def _world() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def everyone(mean: Scalar) -> Scalar:
    """The mean over processes of their shares' means; gradients flow to all of them."""
    if _world() == 1:
        return mean
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(mean) / _world()


def gathered(codes: Features) -> Features:
    """The codes of the whole batch, from all processes; gradients flow to all of them."""
    if _world() == 1:
        return codes
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(codes.contiguous()))


def processes(device: str) -> int:
    """How many processes a training on `device` should use.

    `LATENTPAPERS_PROCESSES`, else one per GPU for `cuda` (and 1 for `cuda:1`, a single card), else
    1; inside torchrun always 1, so that no training starts another.
    """
    if "WORLD_SIZE" in os.environ:
        return 1
    named = os.environ.get("LATENTPAPERS_PROCESSES", "")
    if named.isdigit() and int(named) > 0:
        return int(named)
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def launch(arguments: list[str], processes: int) -> None:
    """Runs `python ARGUMENTS` in `processes` processes under torchrun and waits.

    Raises:
        subprocess.CalledProcessError: if any of them fails.
    """
    with socket.socket() as probe:  # a free port, so that two trainings can share a machine
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", *arguments]
    subprocess.run(command, check=True)
