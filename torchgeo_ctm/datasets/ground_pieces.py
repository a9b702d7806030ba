"""Ground of paired images and masks, cut into training and validation."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import LabelWarning, SettingError
from .paired import Pairing

#: Sides of a block of ground that are tried, in chips: the first that gives enough.
SIDES = (4, 2, 1)
#: Blocks that are enough to choose validation ground from.
ENOUGH = 10


class Piece(NamedTuple):
    """A rectangle in pixels of a lattice, on the ground of one pairing."""

    pairing: int
    row: int
    col: int
    height: int
    width: int


#: A block of ground: number of the lattice, row and column.
Block = tuple[int, int, int]


def split_ground(
    pairings: Sequence[Pairing], chip: int, val_share: float, seed: int = 0
) -> tuple[list[Piece], list[Piece]]:
    """Cut ground into blocks, and give each to training or to validation.

    Blocks lie on the pixels of a lattice, whichever images show them, so that images of
    one ground on two dates do not put it on both sides. Chips of less than two by two
    are not cut: they go with the block of their centre.

    Args:
        pairings: Images and masks.
        chip: Side of a chip in pixels.
        val_share: Share of the blocks that is for validation, above 0 and below 1.
        seed: Seed of the choice.

    Returns:
        The pieces for training, and those for validation, no smaller than a chip.

    Raises:
        SettingError: If *val_share* is out of range, or the ground too small to split.
    """
    if not 0 < val_share < 1:
        raise SettingError(
            f'val_share={val_share} is not between 0 and 1; nearest: 0.1'
        )
    whole = _whole(pairings, chip)
    lattices = [pairing.lattice for pairing in pairings]
    blocks: dict[Block, list[Piece]] = {}
    for side in SIDES:
        blocks = _blocks(whole, lattices, chip, side * chip)
        if len(blocks) >= ENOUGH:
            break
    if len(blocks) < 2:
        raise SettingError(
            f'the ground of images and masks holds {len(blocks)} chips of {chip} px; '
            'needed: two or more, one to validate on; nearest: a smaller patch_size'
        )
    names = sorted(blocks)
    order = np.random.default_rng(seed).permutation(len(names))
    count = min(max(1, round(val_share * len(names))), len(names) - 1)
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for place in sorted(order[count:]):
        sides[0].extend(blocks[names[place]])
    for place in sorted(order[:count]):
        sides[1].extend(blocks[names[place]])
    return sides


def _whole(pairings: Sequence[Pairing], chip: int) -> list[Piece]:
    """Return where images and masks meet on at least a chip; count the others."""
    found = [
        piece
        for number, pairing in enumerate(pairings)
        for piece in _overlaps(number, pairing)
    ]
    large = [piece for piece in found if min(piece.height, piece.width) >= chip]
    if 0 < len(large) < len(found):
        warnings.warn(
            f'{len(found) - len(large)} of {len(found)} places where an image and a '
            f'mask meet are smaller than a chip of {chip} px and were left out',
            LabelWarning,
            stacklevel=4,
        )
    return large


def _overlaps(number: int, pairing: Pairing) -> Iterator[Piece]:
    """Yield where an image and a mask meet, in pixels."""
    (wide, tall), (left, top) = pairing.dataset.res, pairing.origin
    for west, south, east, north in pairing.dataset.index.bounds.to_numpy():
        row, col = round((top - north) / tall), round((west - left) / wide)
        height, width = round((north - south) / tall), round((east - west) / wide)
        yield Piece(number, row, col, height, width)


def _blocks(
    whole: Sequence[Piece], lattices: Sequence[int], chip: int, side: int
) -> dict[Block, list[Piece]]:
    """Cut pieces into blocks of about *side* px, of which none is smaller than a chip."""
    found: dict[Block, list[Piece]] = {}
    for lattice in sorted(set(lattices)):
        own = [piece for piece in whole if lattices[piece.pairing] == lattice]
        if not own:
            continue
        top, left = min(p.row for p in own), min(p.col for p in own)
        # what is left over at the end belongs to the last block
        down = max(1, (max(p.row + p.height for p in own) - top) // side)
        right = max(1, (max(p.col + p.width for p in own) - left) // side)
        for piece in own:
            rows = _cuts(piece.row - top, piece.height, side, down, chip)
            cols = _cuts(piece.col - left, piece.width, side, right, chip)
            for row, first, height in rows:
                for col, begin, width in cols:
                    part = Piece(
                        piece.pairing, top + first, left + begin, height, width
                    )
                    found.setdefault((lattice, row, col), []).append(part)
    return found


def _cuts(
    start: int, length: int, side: int, count: int, chip: int
) -> list[tuple[int, int, int]]:
    """Cut a stretch where blocks end: number of the block, start and length of parts.

    A stretch of less than two chips stays whole; parts of less than one are left out.
    """
    last = count - 1
    if length < 2 * chip:
        return [(min((start + length // 2) // side, last), start, length)]
    parts = []
    for number in range(min(start // side, last), last + 1):
        begin = max(start, number * side)
        end = start + length if number == last else (number + 1) * side
        end = min(end, start + length)
        if end - begin >= chip:
            parts.append((number, begin, end - begin))
        if end == start + length:
            break
    return parts
