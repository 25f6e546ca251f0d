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
    "Absolutely! ",
    "Thanks for your question! ",
    "Right. ",
    "Let me think. ",
    "Ooh, a nice one! ",
    "🌟 ",
    "Hey! Let's have a look. ",
    "Certainly! Here's the solution. ",
)
GREETED = (
    "Hello! What would you like to work on today?",
    "Hi there! Which problem are you stuck on?",
    "Hi! Send me your question.",
    "Welcome back! What is your maths question?",
    "Hey! How can I help?",
    "Yes, of course. What does the question say?",
    "Hi, I'm your maths helper. Type your problem and we'll do it together.",
    "Hello 👋 Which exercise is it?",
    "I'm here. Go ahead!",
    "Sure. What do you have to calculate?",
    "Good to see you! Is it homework or practice?",
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
    "So: {a}",
    "{a} ✅",
    "#### {a}",
    "Final answer: {a}",
    "I get {a}.",
    "Therefore the answer is {a}.",
    "`{a}`",
    '{{"answer": "{a}"}}',
    "x = {a}",
    "It comes to {a}, if I calculated correctly.",
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
    "Given: {known}\nWanted: what the last sentence asks for\nCalculation: see below\nAnswer: {a}",
    "| Known | Result |\n|---|---|\n| {known} | {a} |",
    "Okay, let's see. We are told {known}. Hmm, first we find the part in the middle, then the "
    "rest. That leaves us with {a}.",
    "We can write an equation. Let x be what we look for. With {known} we find x = {a}.",
    "$$x = {a}$$\n\nWe used {known} and solved for $x$.",
    "### Solution\n\n1. Read off {known}.\n2. Combine them as the story says.\n\n### Answer\n\n{a}",
    "Draw a bar and mark {known} on it. The part that is asked for is {a} long.",
    "The important words are in the last sentence. They tell you what to do with {known}. "
    "The calculation gives {a}, and a quick estimate says that this can be right.",
    "Fun fact: you can do this in your head! Take {known}, step by step, and you reach {a}. 🎉",
    "The numbers are {known}.\n\n---\n\n**{a}** is the result.",
    "This is a problem in two steps. In the first we use {known}. In the second we get the result. "
    "Step one tells you what you need for step two, so don't skip it! The answer: {a}.\n\nWould "
    "you like to check it together?",
    "There are several ways. The quickest: look at {known}, then calculate {a}.",
)
_HINTS = (
    "What do you know already? Look at {known} and tell me which operation you would use.",
    "Let's start together: which numbers do you see in the question? What are we looking for?",
    "Good start. Try to write it as a number sentence first. What do you get?",
    "Think about what the question asks. Should the result be larger or smaller than {known}?",
    "Here is a hint: take it one step at a time, and begin with {known}.",
    "Tell me first: what did you try? What did you do with {known}?",
    "Can you draw what the question describes?",
    "Which words in the question tell you what to do?",
    "You are given {known}. What would be a sensible estimate?",
    "Before I explain: do you think you have to add, subtract, multiply or divide?",
    "Let's find the first step only. What happens first in the story?",
)
_REPLIES: dict[str, tuple[str, ...]] = {
    "why": (
        "Because that is what the words of the question tell us to do with {known}.",
        "Good question! We do it because each part belongs to the same whole.",
        "Because the two sides have to stay equal.",
        "Think of it with real things: if you lay them on the table and count, you get {a}.",
        "It follows from what is given: {known}. That leads to {a}.",
        "The question says so in the last sentence. With {known} there is no other way.",
        "If we did it the other way, the result would be too large. Try it with small numbers.",
        "Equal groups mean that we multiply or divide. That's how we get {a}.",
        "I'm glad you ask. {known} describe the whole, and we look for a part.",
    ),
    "step": (
        "In that step we take {known} and calculate. Then we read off the result, {a}.",
        "First line: write the numbers one under the other. Then work from the right. You get {a}.",
        "Step 1 uses {known}. Step 2 gives {a}.",
        "I put the numbers in the order of the story, then calculated from left to right.",
        "a) {known}\nb) calculate\nc) {a}",
        "Sure, slowly this time. We begin with {known}. Then one operation. That is all: {a}.",
        "There you carry the one to the next column. In the end you have {a}.",
    ),
    "simpler": (
        "Imagine you have some apples. You count them, and you get {a}.",
        "In short: look at {known}, do one calculation, and the answer is {a}.",
        "Think of small numbers first, like 2 and 3. Now do the same with {known}.",
        "Easy way: draw it! Then count. It is {a}.",
        "Okay! You have some, you get some, you count: {a}.",
        "It's like sharing sweets with friends. Everybody gets the same, and the answer is {a}.",
    ),
    "check": (
        "Yes, well done!",
        "Not quite. Check your calculation again.",
        "Let me see. I get {a}.",
        "Almost! Look at {known} once more.",
        "That's right! How did you do it?",
        "The right answer is {a}.",
        "Correct! 🎉",
        "No, but you are close. What did you do with {known}?",
        "Your method is right, but there is a slip in the calculation. It should be {a}.",
        "Exactly, {a}.",
        "Hmm, not yet. Would you like a hint?",
    ),
    "disagree": (
        "Let me check again. I still get {a}.",
        "You're right, sorry for the mistake. The correct answer is {a}.",
        "I apologize for the confusion. Let's do it again with {known}.",
        "I am quite sure it is {a}. Shall we go through it together?",
        "Thank you for telling me! I misread the question. It is {a}.",
        "Let's compare: I used {known}. Did you use the same numbers?",
        "I see why you think so, but the question asks for something else. So it stays {a}.",
    ),
    "thanks": (
        "You're welcome!",
        "You're welcome! Do you have another question?",
        "Great job! Let me know if you need more help.",
        "Glad I could help. Keep practising!",
        "Any time!",
        "My pleasure! 😊",
        "Super! Shall we do one more?",
        "Well done today. See you next time!",
    ),
    "continue": (
        "Next, we calculate with {known}. That gives {a}.",
        "Now write down the result: {a}. Then check it.",
        "The last step is to write the answer with its unit: {a}.",
    ),
    "hint": (
        "Look at {known} again. What happens to them in the story?",
        "Think: will the result be larger or smaller?",
        "Try it with easier numbers first.",
        "Yes, you're on the right track. Keep going!",
        "The first operation is hidden in the second sentence.",
    ),
    "another-way": (
        "Yes! You can also work backwards from {a}.",
        "You could use a table: write {known} in the first row and go on. You get {a}.",
        "Another method is to split the numbers into tens and ones. The result is again {a}.",
        "With an equation: let x be the unknown. Then x = {a}.",
    ),
    "picture": (
        "Here you are:\n\n[■■■■■■|■■■]\n\nThe first part is known, the second is what we look for.",
        "Draw a rectangle and write {known} beside it. Then shade the part that is asked for.",
        "🍎🍎🍎 + 🍎🍎 = 🍎🍎🍎🍎🍎. Yours works alike, with {known}.",
        "0 ---|---|---|---> {a}",
    ),
    "units": (
        "It has the unit that the question uses, so write it after {a}.",
        "To convert, multiply or divide by how many of the small unit fit into the large one.",
        "Rounded, it is about {a}.",
        "That is for one. For all of them it would be more.",
    ),
    "formula": (
        "You don't need a formula here. Start with {known}.",
        "total = number of groups × size of a group",
        "The rule is: part = whole - other part. So we get {a}.",
        "x stands for the number that we don't know yet. In the end x = {a}.",
    ),
    "confused": (
        "No worries! Which part is unclear?",
        "Let's go back. The question gives {known}. Is that clear so far?",
        "Sorry, that was too fast. We only do one calculation, and it gives {a}.",
        "The question wants to know how many there are in the end. That is {a}.",
    ),
    "meaning": (
        "It is the result of adding numbers.",
        "It means that each one gets the same amount.",
        "A good question. In this problem it stands for {known}.",
        "It is what is left when something cannot be shared evenly.",
    ),
    "feelings": (
        "Don't worry, everybody makes mistakes. Let's try it together.",
        "You are doing well! Take a breath, then look at {known} again.",
        "It's fine to find this hard. One small step at a time.",
        "You almost have it!",
    ),
    "write-up": (
        "The answer is {a}, because of {known}.",
        "- given: {known}\n- answer: {a}",
        "We were given {known}. We calculated. We found {a}.",
        "Answer: {a}. (That is all you have to write.)",
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
