"""The cards of a FITS header (FITS Standard 4.0, section 4)."""

import math
import re
from dataclasses import dataclass
from functools import cached_property

from astromorph.errors import FitsImageError

CARD = 80
STRING = re.compile(r"'((?:[^']|'')*)")


@dataclass(frozen=True)
class Header:
    """The cards of one HDU.

    Attributes
    ----------
    raw : bytes
        Whole cards of 80 bytes, END excluded.
    """

    raw: bytes

    @cached_property
    def cards(self) -> dict[str, str]:
        """What stands behind ``= `` of each keyword; the first card counts."""
        found: dict[str, str] = {}
        text = self.raw.decode("latin-1")
        for at in range(0, len(text), CARD):
            if text[at + 8] == "=":
                found.setdefault(text[at : at + 8].rstrip(), text[at + 9 : at + CARD])
        return found

    def value(self, keyword: str) -> str | int | float | bool | None:
        """The value of a keyword; None where it is absent or not to be read."""
        card = self.cards.get(keyword)
        return None if card is None else _value(card)

    def text(self, keyword: str) -> str:
        """A value as text without line breaks; empty where there is none."""
        value = self.value(keyword)
        return "" if value is None else " ".join(str(value).split())

    def number(self, keyword: str) -> float | None:
        """A finite number, also one that was written as text; else None."""
        value = self.value(keyword)
        if isinstance(value, bool) or value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def integer(self, keyword: str, default: int) -> int:
        """A whole number.

        Raises
        ------
        FitsImageError
            The keyword is there and is no whole number.
        """
        card = self.cards.get(keyword)
        if card is None:
            return default
        number = _value(card)
        if isinstance(number, bool) or not isinstance(number, int | float):
            number = math.nan
        if not math.isfinite(number) or number != int(number):
            raise FitsImageError(
                f"the header is damaged: {keyword} is {card.strip()[:30]!r}, a whole "
                "number is needed"
            )
        return int(number)


def _value(card: str) -> str | int | float | bool | None:
    """The value of a card, after the equals sign (FITS Standard 4.0, 4.2)."""
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
