"""The cards of a FITS header (FITS Standard 4.0, section 4)."""

import math
import re
from dataclasses import dataclass
from functools import cached_property

from astromorph.errors import FitsImageError

CARD = 80  # bytes
STRING = re.compile(r"'((?:[^']|'')*)")


@dataclass(frozen=True)
class Header:
    """The cards of one HDU.

    Attributes
    ----------
    raw : bytes
        Complete cards of 80 bytes, without END.
    """

    raw: bytes

    @cached_property
    def cards(self) -> dict[str, str]:
        """The text after ``= `` of each keyword; the first one of repeated keywords."""
        cards: dict[str, str] = {}
        text = self.raw.decode("latin-1")
        for start in range(0, len(text), CARD):
            if text[start + 8] == "=":
                keyword = text[start : start + 8].rstrip()
                cards.setdefault(keyword, text[start + 9 : start + CARD])
        return cards

    def value(self, keyword: str) -> str | int | float | bool | None:
        """The value of a keyword; None if it is absent or cannot be read."""
        card = self.cards.get(keyword)
        return None if card is None else _parse_value(card)

    def text(self, keyword: str) -> str:
        """The value as text without line breaks; empty if there is none."""
        value = self.value(keyword)
        return "" if value is None else " ".join(str(value).split())

    def number(self, keyword: str) -> float | None:
        """The value as a finite number, even if stored as text; otherwise None."""
        value = self.value(keyword)
        if isinstance(value, bool) or value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def integer(self, keyword: str, default: int) -> int:
        """The value as an integer, or the default if the keyword is absent.

        Raises
        ------
        FitsImageError
            The keyword is present and its value is not an integer.
        """
        card = self.cards.get(keyword)
        if card is None:
            return default
        number = _parse_value(card)
        if isinstance(number, bool) or not isinstance(number, int | float):
            number = math.nan
        if not math.isfinite(number) or number != int(number):
            raise FitsImageError(
                f"the header is damaged: {keyword} is {card.strip()[:30]!r}, not "
                "an integer"
            )
        return int(number)


def _parse_value(card: str) -> str | int | float | bool | None:
    """The value in the text after the equals sign (FITS Standard 4.0, 4.2)."""
    text = card.lstrip()
    if text.startswith("'"):
        quoted = STRING.match(text)
        return quoted[1].replace("''", "'").rstrip() if quoted else None
    text = text.partition("/")[0].rstrip()
    if text in ("T", "F"):
        return text == "T"
    try:
        if text.lstrip("+-").isdigit():
            return int(text)
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        return None
