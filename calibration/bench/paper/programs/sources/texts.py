"""Case2Code (arXiv 2407.12504): of a word, its letters in another order."""


def reverse(text: str) -> str:
    return text[::-1]


def ascending(text: str) -> str:
    return "".join(sorted(text))


def rotate(text: str) -> str:
    return text[1:] + text[:1]


def rotate_back(text: str) -> str:
    return text[-1:] + text[:-1]


def swap_ends(text: str) -> str:
    return text[-1] + text[1:-1] + text[0]


def swap_halves(text: str) -> str:
    middle = len(text) // 2
    return text[middle:] + text[:middle]


def even_places_first(text: str) -> str:
    return text[::2] + text[1::2]


def vowels_first(text: str) -> str:
    return "".join(sorted(text, key=lambda letter: letter not in "aeiou"))
