"""Functions of the step: learning-rate factors and stages of progressive growing."""

from dataclasses import dataclass


def halved_at(step: int, milestones: tuple[int, ...]) -> float:
    """1, then half after each milestone that has been reached."""
    return 0.5 ** sum(step >= m for m in milestones)


def warm_up(step: int, steps: int) -> float:
    """A linear ramp to 1 over `steps` steps; the first step already gets 1 / steps."""
    return 1.0 if steps <= 0 else min(1.0, (step + 1) / steps)


@dataclass(frozen=True)
class Stage:
    """One phase of progressive growing.

    Attributes:
        level: how many levels of the networks take part.
        images: training images in this phase.
        fade: whether the newest level is blended in (weight rising linearly 0 -> 1) or holds.
    """

    level: int
    images: int
    fade: bool = False


def stage_at(images: int, stages: tuple[Stage, ...]) -> tuple[int, Stage, float]:
    """The stage after `images` images: its index, itself, and the weight of its newest level.

    The last stage lasts for ever.
    """
    done = images
    for index, stage in enumerate(stages):
        if done < stage.images or index == len(stages) - 1:
            share = min(1.0, done / stage.images) if stage.images else 1.0
            return index, stage, share if stage.fade else 1.0
        done -= stage.images
    raise ValueError("a schedule needs at least one stage")
