"""Discount, tip, tax, profit and interest."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import Money, Problem, price, rounded, shown, spread, told
from calibration.kinds.words import DEAR, GOODS, PEOPLE


def discount_and_tax(draw: random.Random) -> Problem:
    """Sales, tips, taxes and profit."""
    who, friend = draw.sample(PEOPLE, 2)
    item, money = draw.choice(DEAR), Money(draw)
    cost = price(draw, 5, 2000)
    good, goods = draw.choice(GOODS)
    rate = draw.choice((5, 8, 10, 12, 15, 18, 20, 25, 30, 40, 50, 7))
    part = rounded(cost * rate / 100, 2)
    c, paid = money(cost), money(cost - part)
    k = draw.randint(2, 9)
    off = Fraction(draw.randint(1, max(1, int(cost) - 1)))
    return told(
        draw,
        (
            [f"{item} costs {c}.", f"In a sale it is {rate}% off."],
            "What is the sale price",
            "the sale price",
            cost - part,
        ),
        (
            [f"{who} wants to buy {item} for {c}.", f"There is a discount of {rate}%."],
            f"How much does {who} save",
            "the amount saved",
            part,
        ),
        (
            [f"{who}'s meal costs {c}.", f"{who} leaves a {rate}% tip."],
            f"How much does {who} pay altogether",
            "the total with the tip",
            cost + part,
        ),
        (
            [
                f"The bill at a restaurant is {c}.",
                f"{who} and {friend} want to tip {rate} percent.",
            ],
            "How much is the tip",
            "the tip",
            part,
        ),
        (
            [f"{item} is priced at {c} before tax.", f"The sales tax is {rate}%."],
            "What is the price with tax",
            "the price including tax",
            cost + part,
        ),
        (
            [f"{who} buys {k} {goods} at {c} each.", f"The shop takes {rate}% off the total."],
            f"How much does {who} pay",
            f"what {who} pays",
            k * cost - rounded(k * cost * rate / 100, 2),
        ),
        (
            [f"A trader bought {good} for {c} and sold it at a profit of {rate}%."],
            "What was the selling price",
            "the selling price",
            cost + part,
        ),
        (
            [f"{item} was {c}.", f"Now it is {money(off)} cheaper."],
            "What does it cost now",
            "the new price",
            cost - off,
        ),
        (
            [f"After a {rate}% discount {who} paid {paid} for {item}."],
            "What was the original price (round if needed)",
            "the original price",
            cost,
        ),
        (
            [f"VAT of {rate}% is added to {c}."],
            "How much VAT is that",
            "the VAT",
            part,
        ),
        (
            [f"{who} sells {item} for a friend and gets {rate}% of the price, which is {c}."],
            f"How much does {who} get",
            f"{who}'s share",
            part,
        ),
    )


def interest(draw: random.Random) -> Problem:
    """Simple interest, and savings that grow."""
    who, money = draw.choice(PEOPLE), Money(draw)
    principal = 100 * spread(draw, 1, 500)
    rate, years = draw.choice((1, 2, 3, 4, 5, 6, 8, 10, 12)), draw.randint(1, 10)
    gain = Fraction(principal * rate * years, 100)
    p, year = money(principal), "1 year" if years == 1 else f"{shown(draw, years)} years"
    each, months = spread(draw, 2, 300), draw.randint(2, 24)
    return told(
        draw,
        (
            [f"{who} puts {p} in a bank at {rate}% simple interest a year."],
            f"How much interest does {who} earn in {year}",
            f"the interest after {year}",
            gain,
        ),
        (
            [f"{who} borrows {p} for {year}.", f"The simple interest is {rate}% per year."],
            f"How much does {who} have to pay back in total",
            "the total to be paid back",
            principal + gain,
        ),
        (
            [f"A loan of {p} has simple interest of {rate} percent per annum."],
            f"What is the interest for {year}",
            f"the simple interest for {year}",
            gain,
        ),
        (
            [f"{who} saves {money(each)} every month."],
            f"How much has {who} saved after {months} months",
            f"{who}'s savings after {months} months",
            each * months,
        ),
        (
            [f"{who} has {p} and adds {money(each)} each month."],
            f"How much is it after {months} months",
            f"the amount after {months} months",
            principal + each * months,
        ),
        (
            [f"The principal is {p}, the rate {rate}% and the time {year}."],
            "What is the simple interest",
            "the simple interest",
            gain,
        ),
        (
            [f"{p} earned {money(gain)} of simple interest in {year}."],
            "What was the yearly rate",
            "the yearly rate of interest",
            f"{rate}%",
        ),
        (
            [f"{who}'s savings of {p} grow by {rate}% in one year."],
            f"How much does {who} have after that year",
            "the savings after the year",
            principal + Fraction(principal * rate, 100),
        ),
    )
