"""Questions of a customs office, made from ten templates with other numbers, names and goods."""

from __future__ import annotations

import random

_NAMES = (
    "Okafor Lindqvist Marchetti Yamada Duarte Kowalski Haddad Nguyen Petrov Abara Castellanos "
    "Fitzgerald Oyelaran Brandt Tanaka"
).split()
_COUNTRIES = (
    "Brazil,Vietnam,Kenya,Germany,Peru,India,Turkey,Morocco,Canada,Thailand,Portugal,Chile,"
    "South Korea,New Zealand,the Netherlands"
).split(",")
_GOODS = (
    "laptops,bicycles,carpets,cameras,tyres,blankets,lamps,turbines,drills,kettles,helmets,"
    "guitars,printers,leather shoes,cotton shirts,wooden chairs"
).split(",")
_PORTS = "Hamburg Rotterdam Valencia Antwerp Genoa Gdansk Marseille Felixstowe".split()


def _money(draw: random.Random) -> str:
    amount = draw.randint(120, 96_000)
    return draw.choice([f"${amount:,}", f"{amount} euros", f"€{amount}", f"USD {amount:,}.50"])


def _form(form: int, draw: random.Random) -> str:
    name, other = draw.sample(_NAMES, 2)
    country, origin = draw.sample(_COUNTRIES, 2)
    goods = draw.choice(_GOODS)
    port = draw.choice(_PORTS)
    n, m, rate, vat = (draw.randint(2, most) for most in (900, 400, 25, 25))
    value, freight = _money(draw), _money(draw)
    return [
        f"A shipment of {n} {goods} from {country} is valued at {value}. The duty rate is {rate}%. "
        "How much duty is payable?",
        f"{name} imports {n} {goods} from {country} at {value} each and pays {freight} for freight "
        "and insurance. What is the CIF value of the consignment?",
        f"Import VAT of {vat}% is charged on the customs value of {value} plus duty of {freight}. "
        f"What VAT does {name} owe?",
        f"A traveller arriving from {country} carries {goods} worth {value}. The allowance is "
        f"{freight} per person and everything above it is taxed at a flat {rate}%. How much tax "
        "must be paid?",
        f"The broker {name} charges a fixed fee of {value} and {rate} euros for every line of a "
        f"declaration. How much does a declaration of {n} lines cost?",
        f"Of {n} containers that were unloaded at {port}, {m} were selected for inspection and "
        f"{rate} of those had to be opened. How many containers were released unopened?",
        f"An anti-dumping duty of {value} per tonne applies to {goods} of {origin} origin. What is "
        f"due on {n} tonnes?",
        f"{name} must store {goods} in a bonded warehouse at {port} for {n} days at {value} a day. "
        f"The first {rate} days are free. What does storage come to?",
        f"Quota for {goods} from {country} is {n} tonnes a year. By June {m} tonnes had been "
        "drawn. What percentage of the quota is left?",
        f"{other} declared {n} cartons of {goods} but the officers counted {m}. The penalty is "
        f"{value} for each undeclared carton. What is the penalty?",
    ][form]


N_FORMS = 10


def customs(n_each: int, seed: int) -> tuple[list[str], list[int]]:
    """`n_each` questions of each template, mixed, and the template of each."""
    draw = random.Random(seed)
    forms = [form for form in range(N_FORMS) for _ in range(n_each)]
    draw.shuffle(forms)
    return [_form(form, draw) for form in forms], forms
