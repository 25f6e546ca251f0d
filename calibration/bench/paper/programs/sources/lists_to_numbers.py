"""Case2Code (arXiv 2407.12504): of a list of numbers, one number."""


def total(values: list[int]) -> int:
    return sum(values)


def largest(values: list[int]) -> int:
    return max(values)


def second_largest(values: list[int]) -> int:
    return sorted(values)[-2]


def spread(values: list[int]) -> int:
    return max(values) - min(values)


def first_and_last(values: list[int]) -> int:
    return values[0] + values[-1]


def alternating(values: list[int]) -> int:
    return sum(values[::2]) - sum(values[1::2])


def sum_of_even(values: list[int]) -> int:
    return sum(value for value in values if value % 2 == 0)


def last_digit_of_product(values: list[int]) -> int:
    product = 1
    for value in values:
        product = product * value % 10
    return product
