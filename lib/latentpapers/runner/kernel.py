"""Starts an IPython kernel that dies with the runner that started it. Run as a script.

On Linux the operating system sends the signal, at once and whatever the kernel is doing. Elsewhere
ipykernel's own watcher does, within a second, as long as Python code gets to run.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends; does nothing elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = int(os.environ.get("JPY_PARENT_PID", os.getppid()))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


if __name__ == "__main__":
    sys.path.pop(0)  # a script's own folder comes first, and ours holds `plan`, `local`, ...
    die_with_parent()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
