"""Addition in a base (arXiv 2408.00114): numbers in, their sum out, all as texts.

Three of them, so that columns of digits 0 to 7 carry in every base up to 21.
"""

DIGITS = "0123456789ABCDEF"


def add(a: str, b: str, c: str, base: int) -> str:
    value, shown = int(a, base) + int(b, base) + int(c, base), ""
    while value:
        value, digit = divmod(value, base)
        shown = DIGITS[digit] + shown
    return shown or "0"
