"""Units and plain shapes."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import Problem, decimal, plain, rounded, shown, spread, told
from calibration.kinds.words import BY_VOLUME, BY_WEIGHT, PEOPLE

_UNITS = (
    ("m", "cm", 100),
    ("km", "m", 1000),
    ("cm", "mm", 10),
    ("kg", "g", 1000),
    ("tonnes", "kg", 1000),
    ("litres", "ml", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("pounds", "ounces", 16),
    ("gallons", "quarts", 4),
    ("dozen", "eggs", 12),
    ("dollars", "cents", 100),
    ("pounds", "pence", 100),
    ("rupees", "paise", 100),
)
_GROUNDS = ("field", "garden", "room", "floor", "park", "carpet", "playground", "wall", "poster")


def conversion(draw: random.Random) -> Problem:
    """From one unit to another."""
    large, small, per = draw.choice(_UNITS)
    who = draw.choice(PEOPLE)
    value = (
        decimal(draw, 1, 30, draw.choice((0, 1)))
        if per % 10 == 0
        else Fraction(spread(draw, 1, 50))
    )
    x, y = plain(value), plain(value * per)
    count, extra = spread(draw, 2, 40), draw.randint(1, per - 1)
    food, liquid = draw.choice(BY_WEIGHT), draw.choice(BY_VOLUME)
    grams, cups = 50 * draw.randint(2, 15), draw.choice((100, 125, 200, 250, 500))
    a, b = f"{count} {large}", f"{extra} {small}"
    bare = (
        (f"Convert {x} {large} to {small}.", y),
        (f"{x} {large} in {small}", y),
        (f"How many {small} are {x} {large}?", y),
        (f"how many {small} in {x} {large}", y),
        (f"{y} {small} = ? {large}", x),
        (f"What is {y} {small} in {large}?", x),
        (f"change {y} {small} into {large}", x),
        (f"{x} {large} = ___ {small}", y),
        (f"Write {a} {b} in {small}.", plain(count * per + extra)),
        (f"How many {small} are there in {a} and {b}?", plain(count * per + extra)),
        (
            f"Which is more, {x} {large} or {plain(value * per + 1)} {small}?",
            f"{plain(value * per + 1)} {small}",
        ),
        (f"{a} {b} + {extra} {small} = how many {small}?", plain(count * per + 2 * extra)),
    )
    if draw.random() < 0.6:
        return draw.choice(bare)
    return told(
        draw,
        (
            [f"A rope is {x} m long.", f"{who} cuts off {extra} cm."],
            "How many centimetres are left",
            "the length that is left in cm",
            value * 100 - extra,
        ),
        (
            [f"{who} buys {count} packets of {food} of {grams} g each."],
            "How many kilograms is that",
            "the weight in kilograms",
            Fraction(count * grams, 1000),
        ),
        (
            [f"A jug holds {x} litres of {liquid}.", f"A glass holds {cups} ml."],
            "How many glasses can be filled, part of a glass included",
            "how many glasses can be filled",
            value * 1000 / cups,
        ),
        (
            [f"{who} drinks {cups} ml of water {count} times."],
            "How many litres is that",
            "the litres of water",
            Fraction(cups * count, 1000),
        ),
        (
            [f"One step of {who} is {grams // 10} cm long."],
            f"How many metres are {count} steps",
            f"the length of {count} steps in metres",
            Fraction(grams // 10 * count, 100),
        ),
        (
            [f"{who} weighs {count + 20} kg and carries a bag of {grams} g."],
            "How many kg is that together",
            "the weight together in kg",
            count + 20 + Fraction(grams, 1000),
        ),
    )


def flat_shapes(draw: random.Random) -> Problem:
    """Perimeter and area of squares, rectangles, triangles, circles; a missing side."""
    who, ground = draw.choice(PEOPLE), draw.choice(_GROUNDS)
    unit = draw.choice(("cm", "m", "m", "mm", "feet", "inches", "units"))
    if draw.random() < 0.25:
        a, b = (decimal(draw, 1, 30, 1) for _ in range(2))
    else:
        a, b = (Fraction(spread(draw, 2, 200)) for _ in range(2))
    s, r = Fraction(spread(draw, 2, 90)), draw.randint(1, 30)
    x, y, z = plain(a), plain(b), plain(s)
    c, cost = a + b - Fraction(1, 2), draw.randint(2, 40)
    sides, shape = draw.choice(((3, "triangle"), (5, "pentagon"), (6, "hexagon"), (8, "octagon")))
    return told(
        draw,
        (
            [f"A rectangle is {x} {unit} long and {y} {unit} wide."],
            "What is its area",
            "its area",
            a * b,
        ),
        (
            [f"A rectangle has sides of {x} {unit} and {y} {unit}."],
            "What is its perimeter",
            "its perimeter",
            2 * (a + b),
        ),
        ([f"A square has sides of {z} {unit}."], "What is its area", "its area", s * s),
        (
            [f"Each side of a square is {z} {unit}."],
            "What is the perimeter",
            "the perimeter",
            4 * s,
        ),
        (
            [f"The perimeter of a square is {plain(4 * s)} {unit}."],
            "How long is one side",
            "the length of a side",
            s,
        ),
        (
            [
                f"The area of a rectangle is {plain(a * b)} square {unit}.",
                f"Its length is {x} {unit}.",
            ],
            "What is its width",
            "its width",
            b,
        ),
        (
            [f"A triangle has a base of {x} {unit} and a height of {z} {unit}."],
            "What is its area",
            "the area of the triangle",
            a * s / 2,
        ),
        (
            [f"The sides of a triangle are {x}, {y} and {plain(c)} {unit}."],
            "What is its perimeter",
            "the perimeter of the triangle",
            a + b + c,
        ),
        (
            [f"A regular {shape} has sides of {z} {unit}."],
            "What is its perimeter",
            "its perimeter",
            sides * s,
        ),
        (
            [f"A circle has a radius of {r} {unit}.", "Use 3.14 for pi."],
            "What is its circumference",
            "the circumference",
            Fraction(314 * 2 * r, 100),
        ),
        (
            [f"The radius of a circle is {r} {unit}."],
            "What is its area (π = 3.14)",
            "its area with 3.14 for pi",
            Fraction(314 * r * r, 100),
        ),
        (
            [f"{who}'s {ground} is {x} m by {y} m."],
            "How many square metres is that",
            "its area in square metres",
            a * b,
        ),
        (
            [
                f"{who} puts a fence around a field of {x} m by {z} m.",
                f"A metre of fence costs ${cost}.",
            ],
            "How much does the fence cost",
            "the cost of the fence in dollars",
            2 * (a + s) * cost,
        ),
        (
            [f"Two angles of a triangle are {r + 20} and {cost + 30} degrees."],
            "How large is the third angle",
            "the third angle",
            130 - r - cost,
        ),
    )


def solids(draw: random.Random) -> Problem:
    """Volume and surface of boxes and cubes."""
    who = draw.choice(PEOPLE)
    unit = draw.choice(("cm", "cm", "m", "inches", "units"))
    a, b, c = (draw.randint(1, 40) for _ in range(3))
    box = draw.choice(
        ("box", "tank", "fish tank", "suitcase", "block of wood", "cuboid", "container")
    )
    liquid, deep = draw.choice(BY_VOLUME), draw.randint(1, 9)
    small = draw.randint(2, 6)
    number = shown(draw, a)
    return told(
        draw,
        (
            [f"A {box} is {a} {unit} long, {b} {unit} wide and {c} {unit} high."],
            "What is its volume",
            "its volume",
            a * b * c,
        ),
        (
            [f"A cube has edges of {number} {unit}."],
            "What is its volume",
            "the volume of the cube",
            a**3,
        ),
        (
            [f"The edge of a cube is {a} {unit}."],
            "What is its surface area",
            "its surface area",
            6 * a * a,
        ),
        (
            [
                f"The volume of a {box} is {a * b * c} cubic {unit}.",
                f"Its base is {a} by {b} {unit}.",
            ],
            "How high is it",
            "its height",
            c,
        ),
        (
            [f"{who} fills a {box} of {10 * a} cm by {10 * b} cm by {10 * deep} cm with {liquid}."],
            "How many litres fit in (1 litre is 1000 cubic cm)",
            "the litres that fit in",
            a * b * deep,
        ),
        (
            [
                f"A {box} measures {a * small} by {b * small} by {small} cm.",
                f"Cubes of {small} cm go in.",
            ],
            "How many cubes fit in it",
            "the number of cubes that fit in",
            a * b,
        ),
        (
            [f"A {box} has length {a} {unit}, width {b} {unit} and height {c} {unit}."],
            "What is its surface area",
            "its surface area",
            2 * (a * b + b * c + a * c),
        ),
        (
            [
                f"The base of a prism has an area of {a * b} square {unit}.",
                f"It is {c} {unit} tall.",
            ],
            "What is the volume",
            "the volume",
            a * b * c,
        ),
        (
            [f"A {box} of {a} by {b} {unit} that is {2 * c} {unit} tall is half full."],
            f"How many cubic {unit} are filled",
            f"the cubic {unit} that are filled",
            a * b * c,
        ),
        (
            [f"A cylinder has a radius of {small} cm and a height of {c} cm.", "Take 3.14 for pi."],
            "What is its volume",
            "its volume",
            rounded(Fraction(314 * small * small * c, 100), 2),
        ),
    )
