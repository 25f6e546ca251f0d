"""Rewritings of a question that keep its task, one function each.

Each takes a text and the random numbers to draw from, and returns the text as rewritten: the same
text where it does not apply. Numbers keep their value.
"""
