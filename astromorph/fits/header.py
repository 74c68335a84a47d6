"""The cards of a FITS header (FITS Standard 4.0, section 4)."""

import contextlib
import math
import re
from dataclasses import dataclass
from functools import cached_property

from astromorph.errors import FitsImageError

CARD = 80  # bytes
VALUE_INDICATOR = "= "  # in columns 9 and 10; without it, a card has no value
STRING = re.compile(r"'((?:[^']|'')*)")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EDed][+-]?\d+)?", re.ASCII)
# Some programs write blanks after a sign and around the exponent.
NUMBER_WITH_BLANKS = re.compile(
    r"[+-]? *(\d+\.?\d*|\.\d+)( *[EDed] *[+-]? *\d+)?", re.ASCII
)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


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
        return self._cards[0]

    @cached_property
    def _cards(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Texts of cards with a value, cards without one, and second texts, by keyword.

        A card without a value is only recorded if it is the first of its keyword. Of a
        repeated keyword, the second text is the first that differs. Some programs write
        ``= `` directly after a keyword of less than eight characters.
        """
        cards: dict[str, str] = {}
        without_value: dict[str, str] = {}
        second_texts: dict[str, str] = {}
        text = self.raw.decode("latin-1")
        for start in range(0, len(text), CARD):
            name = text[start : start + 8]
            if text[start + 8 : start + 10] == VALUE_INDICATOR:
                keyword, value = name.strip().upper(), text[start + 10 : start + CARD]
                if cards.setdefault(keyword, value) != value:
                    second_texts.setdefault(keyword, value)
                continue
            early = text[start : start + 9].find(VALUE_INDICATOR)
            if early > 0 and name[early - 1] != " ":
                keyword = name[:early].strip().upper()
                value = text[start + early + 2 : start + CARD]
                if cards.setdefault(keyword, value) != value:
                    second_texts.setdefault(keyword, value)
                continue
            keyword = name.partition("=")[0].strip().upper()
            if keyword == "HIERARCH":
                inner = text[start + 9 : start + CARD].partition("=")[0]
                keyword = inner.strip().upper()
            if keyword not in cards:
                without_value.setdefault(keyword, text[start : start + CARD].rstrip())
        return cards, {k: v for k, v in without_value.items() if k}, second_texts

    @cached_property
    def long_cards(self) -> dict[str, list[str]]:
        """Texts of keywords with CONTINUE cards or in the HIERARCH convention.

        Names of HIERARCH keywords are in upper case, such as ``ESO INS FILT1 NAME``.
        """
        cards: dict[str, list[str]] = {}
        if b"CONTINUE" not in self.raw and b"HIERARCH" not in self.raw:
            return cards
        text = self.raw.decode("latin-1")
        seen, continued, texts = set[str](), "", list[str]()
        for start in range(0, len(text), CARD):
            card = text[start : start + CARD]
            name, value = card[:8].strip().upper(), card[10:]
            if name == "CONTINUE" and card[8:10] != VALUE_INDICATOR:
                if texts:
                    texts.append(value)
                    cards[continued] = texts
                continue
            if name == "HIERARCH" and card[8:10] != VALUE_INDICATOR:
                inner, _, value = card[9:].partition("=")
                name = " ".join(inner.upper().split())
                cards.setdefault(name, [value])
            continued, texts = name, [] if name in seen else [value]
            seen.add(name)
        return cards

    def value(self, keyword: str) -> str | int | float | bool | None:
        """The value of a keyword; None if it is absent or cannot be read.

        The parts of a long string (FITS Standard 4.0, 4.2.1.2) are joined.
        """
        card = self.cards.get(keyword)
        long_card = self.long_cards.get(keyword) if self.long_cards else None
        if long_card is not None and (card is None or card == long_card[0]):
            return _parse_parts(long_card)
        return None if card is None else _parse_value(card)

    def text(self, keyword: str) -> str:
        """The value as text without line breaks; empty if there is none.

        Text that is not ASCII, which the FITS Standard forbids, is read as UTF-8 if it
        can be, and as Latin-1 otherwise.
        """
        value = self.value(keyword)
        if isinstance(value, str) and not value.isascii():
            with contextlib.suppress(UnicodeDecodeError):
                value = value.encode("latin-1").decode("utf-8")
        return "" if value is None else " ".join(str(value).split())

    def commentary(self, keyword: str) -> list[str]:
        """The texts of all cards of HISTORY or COMMENT, in order."""
        name = keyword.encode("ascii", "replace").ljust(8)
        if name not in self.raw:
            return []
        return [
            self.raw[start + 8 : start + CARD].decode("latin-1").strip()
            for start in range(0, len(self.raw), CARD)
            if self.raw[start : start + 8] == name
        ]

    def number(self, keyword: str) -> float | None:
        """The value as a finite number, even if stored as text; otherwise None."""
        value = self.value(keyword)
        if isinstance(value, str):
            value = _parse_number(value.strip())
        if isinstance(value, bool) or value is None:
            return None
        number = float(value)
        return number if math.isfinite(number) else None

    def integer(self, keyword: str, default: int | None = None) -> int:
        """The value as an integer, or the default if the keyword is absent.

        Raises
        ------
        FitsImageError
            The keyword is present and its value is not an integer, or it is repeated
            with another value, or it is absent and there is no default.
        """
        number = self._required_number(keyword, default, "an integer")
        if number != int(number):
            raise self._value_error(keyword, "an integer")
        return int(number)

    def real(self, keyword: str, default: float) -> int | float:
        """The value as a number, or the default if the keyword is absent.

        Raises
        ------
        FitsImageError
            The keyword is present and its value is not a finite number, or it is
            repeated with another value.
        """
        return self._required_number(keyword, default, "a number")

    def check_cards(self, keywords: re.Pattern[str]) -> None:
        """Check that the cards of some keywords have a value.

        Raises
        ------
        FitsImageError
            The first card of a keyword is not in the form of the FITS Standard.
        """
        for keyword in self._cards[1]:
            if keywords.fullmatch(keyword):
                self._check_card(keyword)

    def _required_number(
        self, keyword: str, default: float | None, allowed: str
    ) -> int | float:
        self._check_card(keyword)
        card = self.cards.get(keyword)
        if card is None:
            if default is None:
                raise FitsImageError(f"the header is damaged: {keyword} is missing")
            return default
        number = _parse_value(card)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self._value_error(keyword, allowed)
        if not math.isfinite(number):
            raise self._value_error(keyword, allowed)
        self.check_repetition(keyword)
        return number

    def check_repetition(self, keyword: str) -> None:
        """Check that a keyword has one value.

        Of contradictory values, programs use the first or the last.

        Raises
        ------
        FitsImageError
            It is repeated with another value.
        """
        second = self._cards[2].get(keyword)
        if second is None or _parse_value(second) == _parse_value(self.cards[keyword]):
            return
        texts = [
            text.partition("/")[0].strip()[:30]
            for text in (self.cards[keyword], second)
        ]
        raise FitsImageError(
            f"the header is contradictory: {keyword} is {texts[0]!r} in one card and "
            f"{texts[1]!r} in another; remove the wrong card"
        )

    def _check_card(self, keyword: str) -> None:
        if card := self._cards[1].get(keyword):
            raise FitsImageError(
                f"the header is damaged: {card[:40]!r} has no value, because columns 9 "
                "and 10 are not '= '"
            )

    def _value_error(self, keyword: str, allowed: str) -> FitsImageError:
        text = self.cards[keyword].strip()[:30]
        return FitsImageError(
            f"the header is damaged: {keyword} is {text!r}, not {allowed}"
        )


def _parse_value(card: str) -> str | int | float | bool | None:
    """The value in the text after the equals sign (FITS Standard 4.0, 4.2)."""
    text = card.lstrip()
    if text.startswith("'"):
        quoted = STRING.match(text)
        return quoted[1].replace("''", "'").rstrip() if quoted else None
    text = text.partition("/")[0].rstrip()
    if text in ("T", "F"):
        return text == "T"
    return _parse_number(text)


def _parse_parts(texts: list[str]) -> str | int | float | bool | None:
    """The value of a card that CONTINUE cards follow: ``&`` ends all but the last."""
    joined = _parse_value(texts[0])
    for text in texts[1:]:
        part = _parse_value(text)
        if not (isinstance(joined, str) and joined.endswith("&")):
            break
        if not isinstance(part, str):
            break
        joined = joined[:-1] + part
    return joined


def _parse_number(text: str) -> int | float | None:
    """A number; infinite if it exceeds the range of a float."""
    if " " in text and NUMBER_WITH_BLANKS.fullmatch(text):
        text = text.replace(" ", "")
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text.replace("D", "E").replace("d", "e"))
    return None
