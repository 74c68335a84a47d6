"""Colours and markers of classes, told apart by all kinds of colour vision."""

# Wong (2011), Nature Methods 8, 441, without yellow, which is faint on white. Further
# values change the marker.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
MARKERS = ("circle", "triangle", "square", "diamond")
NONE_COLOUR = "#b4bac2"
OTHERS_COLOUR = "#8c959f"
SMALLEST, LARGEST = 3.0, 9.0  # pixels


def point_size(number: int) -> float:
    """The diameter, in pixels, of each of many points on a map."""
    usual = 45 / float(max(number, 1)) ** 0.25
    return float(min(max(usual, SMALLEST), LARGEST))
