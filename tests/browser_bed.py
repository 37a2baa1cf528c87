"""What the tests in a real browser share: when they run, Chromium, and how a page is watched."""

import os
import shutil
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                os.environ.get("LATENTPAPERS_CHROMIUM"))  # fmt: skip
FLAGS = [f"--{flag}" for flag in (
    "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "allow-file-access-from-files")]  # fmt: skip


def missing() -> str:
    """What keeps these tests from running, in words; empty if nothing does."""
    if os.environ.get("LATENTPAPERS_BROWSER") != "1":
        return "the browser test runs on request: make test-browser"
    absent = [n for n in ("playwright", "jupyterlab") if find_spec(n) is None]
    if absent:
        return f"not installed here: {', '.join(absent)} (dependency group `browser`)"
    return "" if CHROMIUM else "no chromium on this machine (Debian: apt-get install chromium)"


def shots() -> Path:
    """The folder of the screenshots."""
    folder = Path(os.environ.get("LATENTPAPERS_SHOTS", ".pytest-shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield found
        finally:
            found.close()
