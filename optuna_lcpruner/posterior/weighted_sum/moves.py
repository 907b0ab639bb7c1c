"""Ensemble moves for coordinates that are standard normal a priori; the only user of emcee.

Glossary:
    s    walkers to move, shape (n, D); c the other walkers, from which proposals are built
    mask the coordinates that a proposal changes: one member's block, a random subset, or all

Few of many coordinates matter to a given curve, so most proposals change a few of them: differences
of other walkers where the data speak, draws that keep the prior where they do not.

Source: differential evolution: ter Braak 2006, with subspaces as in Vrugt et al. 2009 (DREAM); the
stretch move: Goodman & Weare 2010; the ensemble: Foreman-Mackey et al. 2013 (emcee); draws that
keep the prior: Neal 1999, Cotter et al. 2013 (pCN). emcee's own snooker move is not used: version
3.1.6 gives a standard normal in six dimensions a variance of 0.7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import emcee
import numpy as np

from optuna_lcpruner._util.arrays import Array, BoolArray, IntArray


class _Masked(emcee.moves.RedBlueMove):  # type: ignore[misc]  # emcee has no type hints
    """What the moves below share: which coordinates to change."""

    def __init__(self, blocks: IntArray) -> None:
        super().__init__()
        self.blocks = blocks

    def mask(self, n: int, random: np.random.RandomState) -> BoolArray:
        """One member's coordinates (1/3), a random subset (1/3), or all of them, (n, D)."""
        kind = random.randint(3, size=(n, 1))
        member = self.blocks == random.randint(self.blocks[-1] + 1, size=(n, 1))
        some = random.rand(n, self.blocks.size) < random.rand(n, 1)
        some[np.arange(n), random.randint(self.blocks.size, size=n)] = True
        return np.where(kind == 0, member, np.where(kind == 1, some, True))


class SubspaceDifference(_Masked):
    """q = s + gamma (c_i - c_j) on the mask, gamma = 2.38 / sqrt(2 d) or, one in ten, 1."""

    def get_proposal(
        self, s: Array, c: list[Array], random: np.random.RandomState
    ) -> tuple[Array, Array]:
        """Proposals and the log of the proposal ratio, which is 0: differences are symmetric."""
        others = np.concatenate(c)
        n = len(s)
        first = random.randint(len(others), size=n)
        second = (first + random.randint(1, len(others), size=n)) % len(others)
        mask = self.mask(n, random)
        gamma = 2.38 / np.sqrt(2.0 * mask.sum(axis=1)) * np.exp(0.3 * random.randn(n))
        gamma = np.where(random.rand(n) < 0.1, 1.0, gamma)
        step = gamma[:, None] * (others[first] - others[second]) + 1e-4 * random.randn(*s.shape)
        return np.where(mask, s + step, s), np.zeros(n)


class PriorRefresh(_Masked):
    """q = sqrt(1 - b^2) s + b xi on the mask, xi ~ N(0, I): keeps the prior, b from 0.1 to 1."""

    def get_proposal(
        self, s: Array, c: list[Array], random: np.random.RandomState
    ) -> tuple[Array, Array]:
        """Proposals and the log of the proposal ratio, the prior's at s over that at q."""
        b = 10.0 ** -random.rand(len(s), 1)
        q = np.sqrt(1.0 - b**2) * s + b * random.randn(*s.shape)
        q = np.where(self.mask(len(s), random), q, s)
        return q, 0.5 * (np.sum(q**2, axis=1) - np.sum(s**2, axis=1))


def ensemble_sampler(
    n_walkers: int,
    blocks: IntArray,
    log_density: Callable[[Array], tuple[Array, Array, Array]],
) -> Any:
    """An emcee sampler whose walkers are evaluated in one call, with a mixture of moves.

    Args:
        n_walkers: Walkers, an even number of at least 2 D.
        blocks: Which member each coordinate belongs to, (D,).
        log_density: ``(n, D) -> log density`` and two values to keep with it, (n,) each.
    """

    def with_blobs(v: Array) -> Array:
        return np.column_stack(log_density(v))

    return emcee.EnsembleSampler(
        n_walkers,
        blocks.size,
        with_blobs,
        vectorize=True,
        moves=[
            (SubspaceDifference(blocks), 0.5),
            (PriorRefresh(blocks), 0.4),
            (emcee.moves.StretchMove(), 0.1),
        ],
    )


def state_of(coordinates: Array, seed: int) -> Any:
    """A start for a sampler: coordinates and a random state of its own."""
    random_state = np.random.RandomState(seed).get_state()
    return emcee.State(coordinates, random_state=random_state)
