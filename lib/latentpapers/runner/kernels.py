"""A kernel manager that needs no installed kernel specification: this interpreter, our launcher."""

import os
import sys
from pathlib import Path
from typing import IO, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

_LAUNCHER = Path(__file__).resolve().with_name("kernel.py")
_LONGEST = 100  # bytes of a socket's name: macOS takes 103, Linux 107


class _ThisInterpreter(KernelSpecManager):
    """Knows one kernel: the interpreter that runs this code, whatever name is asked for."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, str(_LAUNCHER), "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def connection(folder: Path) -> dict[str, str]:
    """How runner and kernel speak: by sockets in `folder`, which belong to this pair alone.

    Ports would be picked here and bound a second later there, and of two jobs that start at once
    both can pick one. They remain where a system has no such sockets, or `folder`'s name is too
    long for them.
    """
    file = folder / "kernel.json"
    name = folder / "kernel-ipc-5"  # the last of the five that Jupyter opens
    if os.name != "posix" or len(os.fsencode(name)) > _LONGEST:
        return {"connection_file": str(file)}
    return {"connection_file": str(file), "transport": "ipc"}


def manager(env: dict[str, str], log: IO[bytes], folder: Path) -> AsyncKernelManager:
    """A manager whose kernel gets `env` as its environment and writes its own stderr to `log`.

    Args:
        folder: an empty one, for what it is reached through; the caller removes it.
    """

    class Manager(AsyncKernelManager):
        async def _async_start_kernel(self, **options: Any) -> None:
            await super()._async_start_kernel(**{**options, "env": env, "stderr": log})

        start_kernel = _async_start_kernel

    return Manager(
        kernel_name="python3", kernel_spec_manager=_ThisInterpreter(), **connection(folder)
    )
