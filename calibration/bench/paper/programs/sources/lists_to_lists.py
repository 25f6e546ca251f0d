"""Case2Code (arXiv 2407.12504): of a list of numbers, a list as long."""


def reverse(values: list[int]) -> list[int]:
    return values[::-1]


def ascending(values: list[int]) -> list[int]:
    return sorted(values)


def descending(values: list[int]) -> list[int]:
    return sorted(values, reverse=True)


def rotate(values: list[int]) -> list[int]:
    return values[1:] + values[:1]


def swap_ends(values: list[int]) -> list[int]:
    return [values[-1], *values[1:-1], values[0]]


def swap_pairs(values: list[int]) -> list[int]:
    swapped = list(values)
    for place in range(0, len(values) - 1, 2):
        swapped[place], swapped[place + 1] = values[place + 1], values[place]
    return swapped


def even_first(values: list[int]) -> list[int]:
    return sorted(values, key=lambda value: value % 2)


def inside_out(values: list[int]) -> list[int]:
    middle = len(values) // 2
    return values[middle:] + values[:middle]
