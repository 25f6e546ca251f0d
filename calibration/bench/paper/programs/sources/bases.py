"""Addition in a base (arXiv 2408.00114): numbers in, their sum out, all as texts."""

DIGITS = "0123456789ABCDEF"


def add(a: str, b: str, base: int) -> str:
    value, shown = int(a, base) + int(b, base), ""
    while value:
        value, digit = divmod(value, base)
        shown = DIGITS[digit] + shown
    return shown or "0"
