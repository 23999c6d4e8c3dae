"""The cheapest pairing of rows with columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(row, column) of a pairing with the least sum that uses every row, or every column where those are fewer.

    The Hungarian method with shortest augmenting paths (Jonker and Volgenant 1987), O(n² m): a picture has tens of boxes, for which
    scipy would be 40 MB of memory.
    """
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T))
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
    row_of = np.full(columns + 1, -1)  # the last column is where each search begins
    for row in range(rows):
        row_of[columns] = row
        least, before = np.full(columns, np.inf), np.full(columns, columns)
        done = np.zeros(columns + 1, np.bool_)
        here = columns
        while row_of[here] >= 0:
            done[here] = True
            reduced = cost[row_of[here]] - row_price[row_of[here]] - column_price[:columns]
            better = (reduced < least) & ~done[:columns]
            least[better], before[better] = reduced[better], here
            open_least = np.where(done[:columns], np.inf, least)
            following = int(open_least.argmin())
            step = open_least[following]
            row_price[row_of[done]] += step
            column_price[done] -= step
            least[~done[:columns]] -= step
            here = following
        while here != columns:
            row_of[here] = row_of[before[here]]
            here = int(before[here])
    return sorted((int(row), column) for column, row in enumerate(row_of[:columns]) if row >= 0)
