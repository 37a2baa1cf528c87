"""Who runs a job: one process at a time, and none that outlives the command that started it.

`claimed` writes `pid.json` into the job's folder. A process whose supervisor is gone is an orphan;
the next command that meets it ends it, after making sure that it is ours.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentpapers import paths, storage
from latentpapers.errors import UserError

SUPERVISOR = "LATENTPAPERS_SUPERVISOR"
JOB = "LATENTPAPERS_JOB"
_POLL = 1.0


def identity(pid: int | None = None) -> str:
    """`host:pid:start` of a process (default: this one); pids alone are reused."""
    pid = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}:{pid}:{_started(pid):.2f}"


def _started(pid: int) -> float:
    """When a process started, 0 if it does not run: ticks since boot where the kernel tells them.

    Seconds since the epoch follow the clock's corrections: one process would get two names.
    """
    import psutil

    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        pass
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def alive(who: str) -> bool:
    """Whether the process of that identity still runs; another host's counts as alive."""
    host, pid, _ = who.rsplit(":", 2)
    return host != socket.gethostname() or int(pid) <= 0 or identity(int(pid)) == who


@contextlib.contextmanager
def claimed(folder: Path, job: str) -> Iterator[None]:
    """Holds a job's folder for this process; ends an orphan that still holds it.

    The kernel inherits the marker LATENTPAPERS_JOB, and so does every process below it.

    Raises:
        UserError: a living command is running the job.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        name = paths.relative(folder)
        raise UserError(f"{name} cannot be made: a file is in its place; move it away.") from None
    with (folder / "lock").open("a+b") as handle:
        if not _locked(handle):
            end_orphan(folder)
            if not _locked(handle, patience=10.0):
                raise UserError(f"{job} is being run by another command; wait for it or end it.")
        note = {"pid": identity(), "supervisor": supervisor(), "job": job}
        storage.write_json(folder / "pid.json", note)
        try:
            yield
        finally:
            (folder / "pid.json").unlink(missing_ok=True)


def supervisor() -> str:
    """The command this process works for: LATENTPAPERS_SUPERVISOR, else the parent process."""
    return os.environ.get(SUPERVISOR) or identity(os.getppid())


def _locked(handle: Any, patience: float = 0.0) -> bool:
    import fcntl

    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)


def end_orphan(folder: Path) -> bool:
    """Ends the process that holds `folder` if its supervisor is gone; True if one was ended."""
    import psutil

    try:
        note = json.loads((folder / "pid.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    gone = alive(note["pid"]) and not alive(note["supervisor"])
    host, pid, _ = note["pid"].rsplit(":", 2)
    if not gone or host != socket.gethostname() or not _ours(int(pid), note["job"]):
        return False
    process = psutil.Process(int(pid))
    family = [process, *process.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)
    return True


def _ours(pid: int, job: str) -> bool:
    """Whether the process carries the job's marker in its environment or command line."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.environ().get(JOB) == job or "latentpapers" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def end_orphans(folder: Path | None = None) -> int:
    """Ends every orphan below a results folder (default: ours); returns how many there were."""
    notes = (folder or paths.results()).glob("*/*/runs/**/pid.json")
    return sum(end_orphan(note.parent) for note in notes)


def end_with_supervisor() -> None:
    """From now on this process ends, with its kernel, soon after its supervisor does."""
    who = os.environ.get(SUPERVISOR)
    if who:
        threading.Thread(target=_watch, args=(who,), daemon=True).start()


def _watch(who: str) -> None:
    while alive(who):
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGKILL)
