"""Who sets the price of KL: a fixed coefficient, or one that steers towards a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FixedKLController:
    """The coefficient stays as it is."""

    value: float

    def update(self, current: float, n_steps: int) -> None:
        """Nothing to do; here so that both controllers are used alike."""


@dataclass
class AdaptiveKLController:
    """Proportional control, Ziegler et al. 2019 (arXiv 1909.08593), section 2.2.

    Attributes:
        value: the coefficient.
        target: KL per response, in nats, that is aimed at.
        horizon: in samples; the larger, the slower the coefficient moves.
    """

    value: float
    target: float
    horizon: int

    def update(self, current: float, n_steps: int) -> None:
        """Move the coefficient after `n_steps` samples whose KL was `current`.

        The error is clipped to ±0.2, so that one strange batch cannot throw the coefficient far.
        """
        error = min(max(current / self.target - 1, -0.2), 0.2)
        self.value *= 1 + error * n_steps / self.horizon
