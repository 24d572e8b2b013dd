"""Card numbers in text: found by their length, the networks' ranges and the check digit."""

import re
from typing import Final

#: A UUID, to be passed over, or a run of digits and what sticks to it; fractions (0.4111...) do not count.
_DIGITS: Final = re.compile(
    r"(?<![^\W_])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![^\W_])"
    r"|(?<![^\W_])(?<![0-9]\.)[0-9](?:[ -]?[0-9]){12,}+[^\W_]*+"
)
#: A card inside a longer run: an expiry date or a check number follows it.
_CARD_LAYOUT: Final = re.compile(
    r"(?<![^\W_])(?:[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){3}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})(?![^\W_])"
)
#: First four digits from, to, and the lengths issued: ISO/IEC 7812 ranges as the networks publish them.
_CARD_RANGES: Final = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (6011, 6011, range(16, 20)),  # Discover
    (6440, 6599, range(16, 20)),
    (3000, 3059, (14,)),  # Diners Club
    (3095, 3095, (14,)),
    (3600, 3699, (14,)),
    (3800, 3999, (14,)),
    (3528, 3589, range(16, 20)),  # JCB
    (6200, 6299, range(16, 20)),  # UnionPay
    (2200, 2204, range(16, 20)),  # Mir
    *((prefix, prefix, range(13, 20)) for prefix in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763)),  # Maestro
)
_LUHN_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

#: Two signs of a card in raw text: a long number, which costs little to look for, and then a start with 2 to 6.
_LONG_NUMBER: Final = re.compile(r"[0-9][0-9 -]{11,}[0-9]")
_CARD_SIGN: Final = re.compile(r"[2-6](?<![0-9][0-9])(?<![0-9]\.[0-9])(?:[ -]?[0-9]){12}")
#: Digits as zeros, for text without spaces and dashes: 13 zeros in a row are a number long enough for a card.
_ZEROS: Final = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_SHORTEST: Final = b"0" * 13


def may_hold_cards(text: str) -> bool:
    """Whether a closer look is due."""
    if _SHORTEST not in text.encode(errors="replace").translate(_ZEROS, b" -"):
        return False  # nearly every text
    return any(_CARD_SIGN.search(text, *number.span()) for number in _LONG_NUMBER.finditer(text))


def redact_cards(text: str) -> str:
    """The text without cards; again until none is found, as one taken out of a run can leave another standing alone."""
    while (redacted := _DIGITS.sub(_redact_digits, text)) != text:
        text = redacted
    return text


def _redact_digits(found: re.Match[str]) -> str:
    run = found.group()
    if _is_card(run):
        return "[redacted:card]"
    return _CARD_LAYOUT.sub(lambda card: "[redacted:card]" if _is_card(card.group()) else card.group(), run)


def _is_card(run: str) -> bool:
    digits = run.replace(" ", "").replace("-", "")
    if not (13 <= len(digits) <= 19 and digits.isascii() and digits.isdigit()):
        return False
    prefix = int(digits[:4])
    known = any(low <= prefix <= high and len(digits) in lengths for low, high, lengths in _CARD_RANGES)
    return known and _luhn_sum(digits) % 10 == 0


def _luhn_sum(digits: str) -> int:
    """The sum of ISO/IEC 7812-1 annex B; a number with a right check digit has one that ends in 0."""
    values = [int(digit) for digit in reversed(digits)]
    return sum(values[::2]) + sum(_LUHN_DOUBLED[value] for value in values[1::2])
