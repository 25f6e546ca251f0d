"""Spatial transforms (arXiv 2408.00114's spatial task): a point of a 9 x 9 room, moved."""

LAST = 8


def stay(x: int, y: int) -> list[int]:
    return [x, y]


def swap(x: int, y: int) -> list[int]:
    return [y, x]


def mirror_x(x: int, y: int) -> list[int]:
    return [LAST - x, y]


def mirror_y(x: int, y: int) -> list[int]:
    return [x, LAST - y]


def turn_90(x: int, y: int) -> list[int]:
    return [y, LAST - x]


def turn_180(x: int, y: int) -> list[int]:
    return [LAST - x, LAST - y]


def turn_270(x: int, y: int) -> list[int]:
    return [LAST - y, x]
