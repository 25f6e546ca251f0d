"""Word order (arXiv 2408.00114's syntax task): subject, verb and object in another order."""


def order(sentence: str, places: list[int]) -> str:
    words = sentence.split()
    return " ".join(words[place] for place in places)
