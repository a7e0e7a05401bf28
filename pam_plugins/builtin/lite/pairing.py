"""Pairs of two kinds of things so that all gains together are greatest: the Hungarian method with potentials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pair(gains: npt.NDArray[np.float64]) -> dict[int, int]:
    """The column of each row (N, M) that has one; where nothing is to be gained, there is no pair.

    Kuhn, "The Hungarian method for the assignment problem" (1955), as shortest augmenting paths: row after row is
    given a column, and rows that had one before move on where that costs least.
    """
    rows, columns = gains.shape
    size = max(rows, columns)
    if not min(rows, columns):
        return {}
    costs = np.zeros((size, size))
    costs[:rows, :columns] = -np.maximum(gains, 0)
    row_price, column_price = np.zeros(size), np.zeros(size)
    row_of = np.full(size, -1)
    for start in range(size):
        distance = np.full(size, np.inf)
        came_from = np.full(size, -1)
        done = np.zeros(size, bool)
        row, column, travelled = start, -1, 0.0
        while True:
            reduced = travelled + costs[row] - row_price[row] - column_price
            nearer = ~done & (reduced < distance)
            distance[nearer], came_from[nearer] = reduced[nearer], column
            column = int(np.where(done, np.inf, distance).argmin())
            travelled = float(distance[column])
            done[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        reached = done & (row_of >= 0)
        row_price[row_of[reached]] += travelled - distance[reached]
        row_price[start] += travelled
        column_price[done] -= travelled - distance[done]
        while column >= 0:
            before = int(came_from[column])
            row_of[column] = row_of[before] if before >= 0 else start
            column = before
    return {int(row): column for column, row in enumerate(row_of[:columns]) if row < rows and gains[row, column] > 0}
