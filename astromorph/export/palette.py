"""Colours and markers of classes, distinguishable with any colour vision."""

# Wong (2011), Nature Methods 8, 441, without yellow, which is hard to see on white.
# When all colours are used, the next classes have the next marker.
BLACK, WHITE = "#000000", "#ffffff"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", BLACK)
MARKERS = ("circle", "triangle", "square", "diamond")
NONE_COLOUR = "#b4bac2"
OTHERS_COLOUR = "#8c959f"
MIN_POINT_SIZE, MAX_POINT_SIZE = 3.0, 9.0  # pixels


def point_size(number: int) -> float:
    """Diameter in pixels of the points on a map with a number of points.

    Examples
    --------
    >>> point_size(100), point_size(10_000), point_size(10**6)
    (9.0, 4.5, 3.0)
    """
    size = 45 / float(max(number, 1)) ** 0.25
    return float(min(max(size, MIN_POINT_SIZE), MAX_POINT_SIZE))
