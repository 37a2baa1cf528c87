"""A kernel manager that needs no installed kernel specification: this interpreter, our launcher."""

import sys
from pathlib import Path
from typing import IO, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

_LAUNCHER = Path(__file__).resolve().with_name("kernel.py")


class _ThisInterpreter(KernelSpecManager):
    """Knows one kernel: the interpreter that runs this code, whatever name is asked for."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, str(_LAUNCHER), "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def manager(env: dict[str, str], log: IO[bytes]) -> AsyncKernelManager:
    """A manager whose kernel gets `env` as its environment and writes its own stderr to `log`."""

    class Manager(AsyncKernelManager):
        async def _async_start_kernel(self, **options: Any) -> None:
            await super()._async_start_kernel(**{**options, "env": env, "stderr": log})

        start_kernel = _async_start_kernel

    return Manager(kernel_name="python3", kernel_spec_manager=_ThisInterpreter())
