"""How often values occur, for percentiles of more pixels than memory holds."""

import numpy as np
from numpy.typing import NDArray

#: Different values that are counted exactly.
MOST_VALUES = 2**17

#: Values that wait until they are counted together.
WAITING = 2**20


class ValueCounts:
    """How often each float32 occurs, in bounded memory.

    Exact up to *most* different values, as every raster of 8 or 16 bits has, scaled or
    not. Beyond, values share a bin when they agree but for the lowest bits of their
    mantissa, as few bits as suffice.

    Law: the counts do not depend on the order in which values are added, nor on what
    was added or merged at once. (The bits that must go grow with the values seen, and
    dropping them early or late is the same.)
    """

    def __init__(self, most: int = MOST_VALUES) -> None:
        """Create empty counts."""
        self.most = most
        self.dropped_bits = 0
        self._keys = np.zeros(0, np.uint32)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[NDArray[np.uint32]] = []
        self._waiting = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, of any shape and without NaN."""
        # + 0 makes −0 the 0 it equals; what is negative is ordered by its complement
        bits = (values.ravel() + np.float32(0)).view(np.uint32)
        sign = np.uint32(1 << 31)
        self._pending.append(np.where(bits & sign, ~bits, bits | sign))
        self._waiting += bits.size
        if self._waiting > WAITING:
            self._count()

    def merge(self, other: 'ValueCounts') -> None:
        """Add the counts of another."""
        self._count()
        other._count()
        self._add_counts(other._keys, other._counts, other.dropped_bits)

    def _count(self) -> None:
        """Count what waits."""
        if self._waiting:
            waiting = np.concatenate(self._pending) >> np.uint32(self.dropped_bits)
            self._pending, self._waiting = [], 0
            waiting.sort()
            starts = _starts(waiting)
            counts = np.diff(starts, append=len(waiting))
            self._add_counts(waiting[starts], counts, self.dropped_bits)

    def _add_counts(
        self, keys: NDArray[np.uint32], counts: NDArray[np.int64], dropped: int
    ) -> None:
        """Add the counts of ordered keys, of which so many bits were dropped."""
        keys, counts, dropped = _fitted(keys, counts, dropped, self.most)
        bits = max(dropped, self.dropped_bits)
        mine = self._keys >> np.uint32(bits - self.dropped_bits)
        keys = np.concatenate([mine, keys >> np.uint32(bits - dropped)])
        # both halves are in order, which a stable sort makes use of
        order = np.argsort(keys, kind='stable')
        counts = np.concatenate([self._counts, counts])[order]
        self._keys, self._counts, self.dropped_bits = _fitted(
            keys[order], counts, bits, self.most
        )

    @property
    def relative_error(self) -> float:
        """How far a value may lie from the one it is counted as; 0 if exact."""
        self._count()
        # half a bin of 2 ** bits units in the last of 23 places
        return float(2.0 ** (self.dropped_bits - 24)) if self.dropped_bits else 0.0

    @property
    def different(self) -> int:
        """How many values, or bins of values, were found."""
        self._count()
        return len(self._keys)

    def percentile(self, per_cent: float) -> float:
        """Return a percentile, interpolated as :func:`numpy.percentile` does.

        NaN if nothing was counted.
        """
        self._count()
        cumulative = np.cumsum(self._counts)
        if not len(cumulative):
            return float('nan')
        place = per_cent / 100 * (int(cumulative[-1]) - 1)
        below = int(place)
        ranks = [below, min(below + 1, int(cumulative[-1]) - 1)]
        low, high = self._values(np.searchsorted(cumulative, ranks, side='right'))
        return float(low + (high - low) * (place - below))

    def _values(self, bins: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the value in the middle of bins."""
        keys = self._keys[bins] << np.uint32(self.dropped_bits)
        if self.dropped_bits:
            keys = keys | np.uint32(1 << (self.dropped_bits - 1))
        sign = np.uint32(1 << 31)
        bits: NDArray[np.uint32] = np.where(keys & sign, keys ^ sign, ~keys)
        return bits.view(np.float32).astype(np.float64)


def _starts(keys: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return where each of the ordered keys comes first."""
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return np.flatnonzero(new)


def _fitted(
    keys: NDArray[np.uint32], counts: NDArray[np.int64], dropped: int, most: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], int]:
    """Add up the counts of equal keys, with as few more bits dropped as fit.

    Returns:
        Keys in order, each once; their counts; and how many bits are dropped now.
    """
    while len(keys):
        starts = _starts(keys)
        keys, counts = keys[starts], np.add.reduceat(counts, starts)
        if len(keys) <= most:
            break
        dropped += 1
        keys = keys >> np.uint32(1)
    return keys, counts, dropped
