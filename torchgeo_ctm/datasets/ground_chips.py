"""Chips of paired images and masks: side by side, or drawn at random."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ..errors import LabelError
from ..grids import IGNORED
from ..windows import window_starts
from .ground_pieces import Piece
from .paired import Pairing

#: Least share of a chip, 0…1, that must have a class to learn anything from it.
MIN_LABELLED = 0.05
#: Draws until one with a class must be found.
TRIES = 1000
#: How often along its side a chip is looked at for classes.
SAMPLES = 16

#: Number of a pairing, and a TorchGeo query.
Place = tuple[int, Any]


class LabelledGround:
    """Which ground of pieces has a class, seen in small.

    Files are opened for each look, and no more than one a piece: data loaders hand open
    files to their workers, which must not share them.
    """

    def __init__(self, pairings: Sequence[Pairing], chip: int) -> None:
        """Look at the masks of pairings.

        Args:
            pairings: Images and masks.
            chip: Side of a chip in pixels.
        """
        self._pairings = list(pairings)
        self._chip = chip
        #: Side in pixels of what is one pixel in small.
        self._step = max(1, chip // SAMPLES)
        self._seen: dict[Piece, NDArray[np.bool_]] = {}

    def enough(self, piece: Piece, row: int, col: int) -> bool:
        """Tell whether the chip at a place of a piece has classes enough."""
        if piece not in self._seen:
            self._seen[piece] = self._look(piece)
        rows, cols = (
            slice(start // self._step, -(-(start + self._chip) // self._step))
            for start in (row, col)
        )
        return float(self._seen[piece][rows, cols].mean()) >= MIN_LABELLED

    def _look(self, piece: Piece) -> NDArray[np.bool_]:
        """Return where a piece has a class, every so many pixels."""
        pairing = self._pairings[piece.pairing]
        masks: Any = copy.copy(pairing.dataset.datasets[1])
        masks.cache = False
        _, (x, y, ever) = query_of(pairing, piece, self._step)
        seen: NDArray[np.bool_] = (masks[x, y, ever]['mask'] != IGNORED).numpy()
        return seen


def query_of(pairing: Pairing, piece: Piece, step: int = 1) -> Place:
    """Return the query for a piece, at every so many pixels."""
    (wide, tall), (left, top) = pairing.dataset.res, pairing.origin
    west, north = left + piece.col * wide, top - piece.row * tall
    return piece.pairing, (
        slice(west, west + piece.width * wide, step * wide),
        slice(north - piece.height * tall, north, step * tall),
        slice(pandas.Timestamp.min, pandas.Timestamp.max),
    )


def side_by_side(
    pairings: Sequence[Pairing], pieces: Sequence[Piece], chip: int
) -> list[Place]:
    """Return the chips that cover pieces, in order; the last ones snap inside.

    Args:
        pairings: Images and masks.
        pieces: Ground of theirs.
        chip: Side of a chip in pixels.

    Raises:
        LabelError: If hardly any of their pixels has a class.
    """
    ground = LabelledGround(pairings, chip)
    places = [
        query_of(pairings[piece.pairing], _chip(piece, row, col, chip))
        for piece in pieces
        for row in window_starts(piece.height, chip, chip)
        for col in window_starts(piece.width, chip, chip)
        if ground.enough(piece, row, col)
    ]
    if not places:
        raise LabelError(
            f'no chip for validation has a class in {MIN_LABELLED:.0%} of its pixels; '
            'nearest: a lower min_confidence, or another seed'
        )
    return places


def _chip(piece: Piece, row: int, col: int, chip: int) -> Piece:
    """Return the chip at a place of a piece."""
    return Piece(piece.pairing, piece.row + row, piece.col + col, chip, chip)


class GroundSampler(Sampler[Place]):
    """Chips drawn at random from pieces, other ones in every epoch.

    What TorchGeo's RandomGeoSampler does, over several coordinate systems, and without
    chips in which hardly any pixel has a class: a batch without any has no loss.
    """

    def __init__(
        self,
        pairings: Sequence[Pairing],
        pieces: Sequence[Piece],
        chip: int,
        length: int | None = None,
    ) -> None:
        """Take the ground.

        Args:
            pairings: Images and masks.
            pieces: Ground of theirs, no smaller than a chip.
            chip: Side of a chip in pixels.
            length: Chips an epoch; None: as many as lie side by side.
        """
        self._pairings, self._pieces, self._side = list(pairings), list(pieces), chip
        self._ground = LabelledGround(pairings, chip)
        sizes = [-(-p.height // chip) * -(-p.width // chip) for p in pieces]
        self.length = sum(sizes) if length is None else length

    def __len__(self) -> int:
        """Return the number of chips an epoch."""
        return self.length

    def __iter__(self) -> Iterator[Place]:
        """Yield a pairing's number and a query of it, from torch's own generator.

        Raises:
            LabelError: If no chip with a class is found.
        """
        weights = torch.tensor([float(p.height * p.width) for p in self._pieces])
        for _ in range(self.length):
            for _ in range(TRIES):
                piece = self._pieces[int(torch.multinomial(weights, 1))]
                row, col = (
                    int(torch.randint(length - self._side + 1, ()))
                    for length in (piece.height, piece.width)
                )
                if self._ground.enough(piece, row, col):
                    break
            else:
                raise LabelError(
                    f'no chip with a class in {MIN_LABELLED:.0%} of its pixels was '
                    f'found in {TRIES} draws; nearest: a lower min_confidence'
                )
            chip = _chip(piece, row, col, self._side)
            yield query_of(self._pairings[piece.pairing], chip)
