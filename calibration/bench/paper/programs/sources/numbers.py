"""Case2Code (arXiv 2407.12504): of a number of two digits, another."""


def double(n: int) -> int:
    return 2 * n


def add_seven(n: int) -> int:
    return n + 7


def digit_sum(n: int) -> int:
    return sum(map(int, str(n)))


def digit_product(n: int) -> int:
    return n // 10 * (n % 10)


def digits_reversed(n: int) -> int:
    return int(str(n)[::-1])


def divisors(n: int) -> int:
    return sum(n % candidate == 0 for candidate in range(1, n + 1))


def next_prime(n: int) -> int:
    while True:
        n += 1
        if all(n % candidate for candidate in range(2, n)):
            return n


def collatz_steps(n: int) -> int:
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps
