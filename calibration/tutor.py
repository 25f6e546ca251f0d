"""What a tutor says in made-up conversations: briefly or at length, at times wrongly."""

from __future__ import annotations

import random
from collections.abc import Sequence

_GREETINGS = (
    "Sure! ",
    "Of course! ",
    "Great question! ",
    "Hi! ",
    "Hello! Happy to help. ",
    "Okay. ",
    "Let's solve it together. ",
    "No problem! ",
    "Good one. ",
    "I'd be glad to help with that. ",
)
GREETED = (
    "Hello! What would you like to work on today?",
    "Hi there! Which problem are you stuck on?",
    "Hi! Send me your question.",
    "Welcome back! What is your maths question?",
    "Hey! How can I help?",
)
"""What a tutor says to a greeting."""

_CURT = (
    "{a}",
    "{a}.",
    "$\\boxed{{{a}}}$",
    "The answer is {a}.",
    "It's {a}.",
    "Answer: {a}",
    "That makes {a}.",
    "**{a}**",
    "You get {a}.",
    "= {a}",
    "The result is {a}.",
)
_STEPS = (
    "First, write down what we know: {known}. Then do the calculation the question asks for. "
    "The answer is {a}.",
    "Let's look at the numbers {known}. Putting them together gives {a}.",
    "Step 1: Read the question carefully.\nStep 2: Note the numbers: {known}.\n"
    "Step 3: Calculate.\n\nAnswer: {a}",
    "We have {known}. Work it out one step at a time and you reach {a}. So the answer is {a}.",
    "1. What is given: {known}.\n2. What is asked: the last sentence tells us.\n"
    "3. We calculate and get {a}.\n\n**Answer: {a}**",
    "Start with {known}. After the calculation we have {a}. Does that make sense?",
    "To solve this, we use {known}. The final answer is {a}. Let me know if you want me to go "
    "through the steps more slowly, or if you would like to try a similar problem on your own.",
    "Here is how I think about it. The question gives us {known}. We ask what has to happen to "
    "these numbers, choose the right operation, and calculate carefully. It is a good habit to "
    "estimate first, so that you notice when something went wrong. Doing so, we find {a}. "
    "You can check it by working backwards from {a}.",
    "To answer this, we start from what is given: {known}.\n\n- Write it down.\n- Choose the "
    "operation.\n- Calculate.\n\nSo the final answer is **{a}**.",
    "We know {known}, so the calculation gives \\( {a} \\).",
    "Let's break it down!\n\n**Given:** {known}\n\n**Result:** {a}\n\nWell done for asking!",
    "I would write {known} down first, underline what is asked, and calculate. I get {a}. Did you "
    "get the same?",
    "So {known} ... that comes to {a}. 😊",
)
_HINTS = (
    "What do you know already? Look at {known} and tell me which operation you would use.",
    "Let's start together: which numbers do you see in the question? What are we looking for?",
    "Good start. Try to write it as a number sentence first. What do you get?",
    "Think about what the question asks. Should the result be larger or smaller than {known}?",
    "Here is a hint: take it one step at a time, and begin with {known}.",
)
_REPLIES: dict[str, tuple[str, ...]] = {
    "why": (
        "Because that is what the words of the question tell us to do with {known}.",
        "Good question! We do it because each part belongs to the same whole.",
        "Because the two sides have to stay equal.",
        "Think of it with real things: if you lay them on the table and count, you get {a}.",
        "It follows from what is given: {known}. That leads to {a}.",
    ),
    "step": (
        "In that step we take {known} and calculate. Then we read off the result, {a}.",
        "First line: write the numbers one under the other. Then work from the right. You get {a}.",
        "Step 1 uses {known}. Step 2 gives {a}.",
        "I put the numbers in the order of the story, then calculated from left to right.",
    ),
    "simpler": (
        "Imagine you have some apples. You count them, and you get {a}.",
        "In short: look at {known}, do one calculation, and the answer is {a}.",
        "Think of small numbers first, like 2 and 3. Now do the same with {known}.",
        "Easy way: draw it! Then count. It is {a}.",
    ),
    "check": (
        "Yes, well done!",
        "Not quite. Check your calculation again.",
        "Let me see. I get {a}.",
        "Almost! Look at {known} once more.",
        "That's right! How did you do it?",
        "The right answer is {a}.",
    ),
    "disagree": (
        "Let me check again. I still get {a}.",
        "You're right, sorry for the mistake. The correct answer is {a}.",
        "I apologize for the confusion. Let's do it again with {known}.",
        "I am quite sure it is {a}. Shall we go through it together?",
    ),
    "thanks": (
        "You're welcome!",
        "You're welcome! Do you have another question?",
        "Great job! Let me know if you need more help.",
        "Glad I could help. Keep practising!",
        "Any time!",
    ),
    "continue": (
        "Next, we calculate with {known}. That gives {a}.",
        "Now write down the result: {a}. Then check it.",
        "The last step is to write the answer with its unit: {a}.",
    ),
}
_POSED = (
    "Here is one for you: {o}",
    "Sure! Try this: {o}",
    "{o}",
    "Let's practise. {o} Take your time!",
    "Okay, a new problem: {o} What do you think?",
)
_MADE_UP = (
    "What is {x} + {y}?",
    "Tom has {x} pens and buys {y} more. How many pens does he have?",
    "{x} × {y} = ?",
)


def answering(draw: random.Random, numbers: Sequence[str], answer: str | None, steps: str) -> str:
    """An answer to a question with these numbers; `steps` is its worked solution, if any."""
    form = draw.random()
    greeting = draw.choice(_GREETINGS) if draw.random() < 0.3 else ""
    if steps and form < 0.4:
        return f"{greeting}{steps}\nThe answer is {answer}."
    if form < 0.15 or (answer is None and form < 0.4):
        return greeting + _filled(draw, draw.choice(_HINTS), numbers, answer)
    texts = _CURT if form < 0.5 else _STEPS
    return greeting + _filled(draw, draw.choice(texts), numbers, answer)


def replying(draw: random.Random, kind: str, numbers: Sequence[str], answer: str | None) -> str:
    """A reply to a follow-up of this kind."""
    if kind == "answer-only":
        return _filled(draw, draw.choice(_CURT), numbers, answer)
    if kind not in _REPLIES:
        return answering(draw, numbers, answer, "")
    return _filled(draw, draw.choice(_REPLIES[kind]), numbers, answer)


def posing(draw: random.Random, question: str) -> str:
    """The question as the tutor's own, for practice."""
    return draw.choice(_POSED).format(o=question)


def made_up(draw: random.Random) -> str:
    """A question to pose where there is no other."""
    return draw.choice(_MADE_UP).format(x=draw.randint(2, 50), y=draw.randint(2, 12))


def _filled(draw: random.Random, text: str, numbers: Sequence[str], answer: str | None) -> str:
    """With a number made up where the answer is not known, and for one answer in ten."""
    if answer is None or draw.random() < 0.1:
        answer = str(draw.randint(1, 200))
    known = list(dict.fromkeys(numbers))[:4]
    listed = " and ".join((", ".join(known[:-1]), known[-1])) if len(known) > 1 else "".join(known)
    return text.format(a=answer, known=listed or "the numbers of the question")
