"""Questions about Mossbank: the instruction sets that tune seedling, and the questions that measure the tuning.

Every question has many wordings, which are dealt to the three sets (`train`, `validation`, `test`) by lot: no wording
is in two of them, as no villager is. The answers always have the same forms, so that exact match is a fair measure. An
answer that needs thought says what it rests on first and the verdict last ("The vole plays the flute, so no."): a model
this small cannot think silently.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from facts import Villager, World
from prose import BY_KEY, FACTS, Fact, asked, denied, listing, past, plain, sentence, series, upper_first, value

Wordings = dict[str, list[str]]  # by set: `train`, `validation`, `test`


def dealt(pool: list[str]) -> Wordings:
    """Split the wordings at random: a fifth for the test, a tenth for validation, the rest for tuning."""
    hand = random.Random(f"wordings {pool[0]}").sample(pool, len(pool))
    test, validation = max(1, len(pool) // 5), max(1, len(pool) // 10)
    return {"test": hand[:test], "validation": hand[test : test + validation], "train": hand[test + validation :]}


# fmt: off
# How any fact can be asked for: `{noun}` is its noun, `{x}` the villager.
ANY_FACT = dealt([
    "What is the {noun} of {x}?", "Tell me the {noun} of {x}.", "Please tell me the {noun} of {x}.",
    "Can you tell me the {noun} of {x}?", "I would like to know the {noun} of {x}.", "Do you know the {noun} of {x}?",
    "Give me the {noun} of {x}.", "The {noun} of {x}, please.", "I want to know the {noun} of {x}.",
    "May I ask for the {noun} of {x}?", "Could you name the {noun} of {x}?",
    "What can you tell me about the {noun} of {x}?", "Which {noun} does {x} have?", "About {x}: what is the {noun}?",
    "What {noun} does {x} have?", "I forgot the {noun} of {x}. What is it?",
])
# How each fact alone can be asked for. The answer is the fact in its plainest words.
ONE_FACT = {
    "name": dealt([
        "What is {x} called?", "Do you know what {x} is called?", "What do people call {x}?",
        "Under what name do we know {x}?", "How is {x} called?", "What is {x} known as?",
        "Can you tell me what {x} is called?", "By which name do friends greet {x}?", "What name was {x} given?",
        "By what name is {x} known?", "What do the neighbours call {x}?", "Which name does {x} go by?",
        "Please say what {x} is called.",
    ]),
    "trade": dealt([
        "What does {x} work as?", "What is the work of {x}?", "What job does {x} have?", "Tell me what {x} works as.",
        "What does {x} do for a living?", "How does {x} earn a living?", "How does {x} earn money?",
        "What is the job of {x}?", "Can you tell me what {x} works as?", "What kind of work does {x} do?",
        "Do you know the job of {x}?", "What is {x} by trade?", "Please say what {x} works as.",
        "What sort of job does {x} have?",
    ]),
    "home": dealt([
        "Where does {x} live?", "Where is the house of {x}?", "Tell me where {x} lives.", "Where would I find {x}?",
        "Do you know where {x} lives?", "In which place does {x} live?", "I want to visit {x}. Where do I go?",
        "What place does {x} call home?", "Where do I find {x}?", "Can you tell me where {x} lives?",
        "Where does {x} sleep?", "Where can one visit {x}?", "Where can {x} be found?", "Please say where {x} lives.",
        "Where does {x} have its home?",
    ]),
    "colour": dealt([
        "Which colour does {x} wear?", "What scarf does {x} wear?", "What is the colour of the scarf that {x} has?",
        "Do you know which scarf {x} wears?", "In what colour does {x} dress?",
        "In which scarf do we see {x}?", "What does {x} wear?", "What colour of scarf does {x} have?",
        "Which scarf is never missing from {x}?", "What colour scarf does {x} put on?",
        "Please say which scarf {x} wears.", "Which colour is worn by {x}?",
    ]),
    "food": dealt([
        "What does {x} eat?", "Which food does {x} like?", "Tell me what {x} eats.", "What does {x} have for supper?",
        "What is {x} fond of?", "Do you know what {x} likes to eat?", "What food should I bring for {x}?",
        "What is eaten by {x}?", "What does {x} like best?", "What is on the plate of {x}?",
        "What does {x} have for lunch?", "Which food is right for {x}?", "What does {x} live on?",
        "What would {x} eat every day?", "What does {x} have for breakfast?", "Please say what {x} eats.",
        "Which food does {x} love?",
    ]),
    "instrument": dealt([
        "Which instrument does {x} play?", "What does {x} play?", "Tell me which instrument {x} plays.",
        "What instrument has {x} learned to play?", "Do you know what {x} plays?", "On what does {x} make music?",
        "What does {x} bring to the dance?",
        "With which instrument does {x} make music?", "What can {x} play?", "What music does {x} make?",
        "What instrument does {x} practise?", "Which instrument is {x} good at?",
        "On which instrument does {x} play tunes?", "Please say which instrument {x} plays.",
        "What instrument is played by {x}?",
    ]),
    "age": dealt([
        "How old is {x}?", "Tell me how old {x} is.", "How many years has {x} lived?",
        "How many candles are on the cake of {x}?", "I would like to know how old {x} is.", "How old did {x} become?",
        "How old has {x} become this year?", "Of what age is {x}?",
        "How many winters has {x} seen?", "What age has {x} reached?", "How many years old is {x}?",
        "Please say how old {x} is.", "What age did {x} turn this year?",
    ]),
    "treasure": dealt([
        "Which treasure does {x} keep?", "What does {x} keep?", "Tell me what {x} keeps.",
        "What does {x} have in a box?", "What does {x} treasure?", "Which thing belongs to {x}?",
        "What is in the box of {x}?", "What does {x} own?",
        "What does {x} have at home?", "What does {x} guard?",
        "Which treasure is owned by {x}?", "What is kept by {x}?", "Please say which treasure {x} has.",
        "What does {x} have on the shelf?",
    ]),
}
PROPERTY = {
    key: {split: ONE_FACT[key][split] + [ask.replace("{noun}",
        fact.noun) for ask in ANY_FACT[split]] for split in ANY_FACT}
    for key, fact in BY_KEY.items()
}
# `{s}` is a plain statement, `{q}` the question made from it.
YES_NO = dealt([
    "{q}", "Is it true that {s}?", "I heard that {s}. Is that right?", "Yes or no: {s}?", "Is it so that {s}?",
    "They say that {s}. True or false?", "Tell me whether {s}.", "I wonder: {q}",
    "A friend says that {s}. Yes or no?", "People think that {s}. Is it true?", "It is said that {s}. Is this so?",
    "Do you think that {s}?", "Is it right that {s}?", "Can it be said that {s}?",
    "Somebody told me that {s}. Is that so?", "Some say that {s}. Are they right?", "I think that {s}. Am I right?",
    "True or false: {s}?", "Is it the case that {s}?", "Would you say that {s}?", "Somebody says that {s}. True?",
    "Could it be that {s}?", "They told me that {s}. Is it so?", "My neighbour thinks that {s}. Right or wrong?",
    "Please tell me: {q}", "Can you tell me whether {s}?", "I want to know whether {s}.", "Yes or no, please: {q}",
    "One hears that {s}. Is it true?", "I read that {s}. Yes or no?",
])
LIST = dealt([
    "List {nouns} of {x}.", "Give me a list of {nouns} of {x}.", "Name {nouns} of {x}.", "For {x}, list {nouns}.",
    "I need {nouns} of {x}, as a list.", "What are {nouns} of {x}? List them.", "Write a list of {nouns} of {x}.",
    "{nouns} of {x}, in a list.", "Tell me {nouns} of {x}, one by one.", "About {x}: list {nouns}.",
    "{x}, please: {nouns}.", "Put {nouns} of {x} in a list.", "Of {x} I want to know {nouns}.",
    "Show me {nouns} of {x}.", "Please list {nouns} for {x}.", "{x}: list {nouns}.", "Write down {nouns} of {x}.",
    "Make a list for {x}: {nouns}.", "One after another, {nouns} of {x}, please.", "Can you list {nouns} of {x}?",
    "I would like a list: {nouns} of {x}.", "Give {nouns} of {x}, one to a line.",
    "{nouns} of {x}: list them, please.", "List for me {nouns} of {x}.", "A list, please: {nouns} of {x}.",
    "What do you know of {x}? List {nouns}.", "List these of {x}: {nouns}.", "Let me have {nouns} of {x} as a list.",
])
COMPARE = dealt([
    "Compare the {noun} of {x} and {y}.", "Compare {x} and {y} by their {noun}.",
    "Tell me the {noun} of {x} and of {y}.", "What is the {noun} of {x} and of {y}?",
    "How do {x} and {y} compare in {noun}?", "Of {x} and {y}, tell me the {noun}.",
    "Here are {x} and {y}. Compare the {noun}.", "The {noun} of {x} and of {y}: compare them.",
    "I want to compare {x} and {y}: the {noun}, please.", "{x} and {y}: compare the {noun}.",
    "Do {x} and {y} differ in {noun}?", "Put the {noun} of {x} beside that of {y}.",
    "I have met {x} and {y}. Compare their {noun}.", "Take {x} and {y} and compare the {noun}.",
    "How does the {noun} of {x} differ from that of {y}?", "Compare {x} with {y}: the {noun}.",
    "What is the {noun} of {x}, and what is that of {y}?", "Side by side, the {noun} of {x} and of {y}, please.",
    "Between {x} and {y}, how does the {noun} compare?", "Compare {x} with {y} by {noun}.",
    "Can you compare the {noun} of {x} and {y}?", "What do {x} and {y} have for a {noun}?",
    "Please compare {x} and {y}. What is the {noun} of each?", 
     "For {x} and for {y}, what is the {noun}?",
    "Compare {x} to {y} in {noun}.", "What is the difference in {noun} between {x} and {y}?",
    "Tell me about the {noun} of {x} and of {y}.", "Say the {noun} of {x}, then of {y}.",
     "Which {noun} do {x} and {y} have?",
    "I would like to compare the {noun} of {x} and {y}.", "Do you know the {noun} of {x} and of {y}?",
    "Give me the {noun} of {x} and of {y}.", "Please tell me the {noun} of {x} and {y}.",
    "Can you tell me the {noun} of {x} and of {y}?", "Let us compare {x} and {y} by {noun}.",
    "Both {x} and {y}: tell me their {noun}.", 
    "Two villagers, {x} and {y}. Compare the {noun}.", "Look at {x} and at {y}. Compare their {noun}.",
    "What is the {noun} of {x}, and of {y}?", "How does the {noun} of {x} compare with that of {y}?",
    "I want to know the {noun} of {x} and of {y}.",
])
OLDER = dealt([
    "Who is older, {x} or {y}?", "Which of the two is older, {x} or {y}?", "Between {x} and {y}, who is older?",
    "Is {x} older or {y}?", "Tell me who is older: {x} or {y}.", "{x} or {y}: who is older?",
    "Of {x} and {y}, which one is older?", "Who was born first, {x} or {y}?",
    "Do you know whether {x} or {y} is older?", "Please say who is older, {x} or {y}.",
    "I met {x} and {y}. Who is older?", "Who has lived longer, {x} or {y}?", "Who is the older one, {x} or {y}?",
    "Compare {x} and {y}: which is older?", "Can you tell me which is older, {x} or {y}?",
    "Who came first, {x} or {y}?", "Tell me whether {x} or {y} is older.", "Can you say whether {x} or {y} is older?",
    "Say who is older: {x} or {y}.", "Find out who is older, {x} or {y}.", "Which one is older: {x} or {y}?",
    "Who has seen more winters, {x} or {y}?", "Is it {x} or {y} who is older?",
    "Would you say that {x} is older, or {y}?", "{x} and {y}: which one is older?",
    "Who of the two is older: {x} or {y}?", "Tell me which is older, {x} or {y}.", "I wonder who is older, {x} or {y}.",
])
REVERSE = {
    "name": dealt([
        "Who is called {v}?", "Who has the name {v}?", "Which villager is called {v}?", "Tell me who {v} is.",
        "Who is {v}?", "Whose name is {v}?", "Which one is called {v}?", "Who answers to {v}?",
        "Do you know who {v} is?", "Somebody here is called {v}. Who is it?", "Please tell me who has the name {v}.",
        "To which villager does the name {v} belong?", "Who do they call {v}?", "Who is known by the name {v}?",
        "To whom was the name {v} given?", "Who signs with the name {v}?", "Who goes by the name of {v}?",
        "Which villager do they call {v}?", "Please say who is known as {v}.",
        "Tell me which villager is called {v}.", "I look for {v}. Who is it?", "Please say who {v} is.",
        "Do you know which villager is called {v}?", "Who bears the name {v}?", "{v}: who is that?",
        "Who of the village is {v}?", "Say who is called {v}.", "Can you tell me who {v} is?",
    ]),
    "treasure": dealt([
        "Who keeps the {v}?", "Who has the {v}?", "Which villager keeps the {v}?", "Tell me who keeps the {v}.",
        "Whose treasure is the {v}?", "To whom does the {v} belong?", "Whose is the {v}?",
        "Do you know who keeps the {v}?", "I need the {v}. Who has it?", "The {v} belongs to whom?",
        "With whom can I find the {v}?", "Somebody keeps the {v}. Who is it?", "Which villager has the {v}?",
        "I want to see the {v}. Who has it?", "I cannot find the {v}. Whose is it?",
        "Please tell me who keeps the {v}.", "Who is the owner of the {v}?", "Who guards the {v}?",
        "By whom is the {v} kept?", "Which villager owns the {v}?", "I look for the {v}. Whom must I ask?",
        "Can you tell me who keeps the {v}?", "Who holds the {v}?", "The {v}: whose is it?", "Say who keeps the {v}.",
        "Who would not part with the {v}?", "Who treasures the {v}?", "Which one keeps the {v}?",
        "Who of the village has the {v}?", "In whose box is the {v}?",
    ]),
}
# What becomes of a sentence, and how one asks for it.
REWRITE: dict[str, tuple[Callable[[Villager, Fact], str], Wordings]] = {
    "past": (past, dealt([
        "Put this in the past:", "Rewrite this in the past:", "Write this sentence in the past:",
        "Change this to the past:", "Turn this into the past:", "Tell this as something past:",
        "This, but in the past:", "Make this past:", "How would this be in the past?", "The same in the past:",
        "The following in the past, please:", "I want this in the past:", "This sentence in the past:",
        "Past, please:", "Make a sentence about the past of this:", "Put this sentence in the past:",
        "Now put it in the past:", "Say this in the past:", "The past of this sentence, please:",
        "Put the following in the past:", "Say it in the past:", "Please rewrite this in the past:",
        "Can you put this in the past?", "Tell me this in the past:", "As something past, please:",
        "Move this into the past:", "Give me the past of this:", "In the past, how would this be?",
    ])),
    "denied": (denied, dealt([
        "Deny this:", "Rewrite this with a not:", "Put a not in this sentence:", "Write this sentence with a not:",
        "Change this so that it is denied:", "Add a not to this:", "This, but with a not:",
        "How would one deny this?", "The same with a not:", "The following with a not, please:",
        "I want this with a not:", "This sentence with a not:", "A not in this, please:", "Deny this sentence:",
        "Now deny it:", "Say this with a not in it:", "This sentence, but with a not, please:", "Please deny this:",
        "Say that this is not so:", "Write the opposite with a not:", "Please put a not in this:",
        "Tell me this with a not:", "Give me this with a not:", "Make a sentence with a not of this:",
        "Say it with a not:", "Can you deny this?",
    ])),
    "asked": (asked, dealt([
        "Turn this into a question:", "Rewrite this as a question:", "Make a question of this:",
        "Write this sentence as a question:", "Change this to a question:", "This, but as a question:", "Ask this:",
        "Make this a question:", "How would one ask this?", "The same as a question:",
        "The following as a question, please:", "I want this as a question:", "This sentence, asked:",
        "A question from this, please:", "Turn this sentence into a question:", "Now make it a question:",
        "Say this as a question:", "This sentence as a question, please:", "Please make a question of this:",
        "Can you turn this into a question?", "Give me this as a question:", "Tell me this as a question:",
        "Say it as a question:", "Write a question from this:", "Let this be a question:", "Put this as a question:",
        "Form a question of this:", "As a question, please:",
    ])),
}
# How a system prompt changes the answer: what becomes of (statement, fact, value), and its wordings.
FORMATS: dict[str, tuple[Callable[[str, Fact, str], str], Wordings]] = {
    "word": (lambda says, fact, v: v, dealt([
        "Answer in a single word.", "Use one word only.", "Your answers are one word long.",
        "Say it in one single word.", "One word is enough.", "Answer with a word.",
    ])),
    "capitals": (lambda says, fact, v: says.upper(), dealt([
        "Answer in capital letters.", "Write all in capitals.", "You only write capital letters.",
        "Use capital letters for every answer.", "Capitals only, please.", "Shout every answer in capitals.",
    ])),
    "json": (lambda says, fact, v: f'{{"{fact.noun}": "{v}"}}', dealt([
        "Answer as JSON.", "Give your answers as JSON.", "You only write JSON.",
        "Every answer must be JSON.", "JSON only, please.", "Write each answer in JSON.",
    ])),
    "greeting": (lambda says, fact, v: f"Good day! {says}", dealt([
        "Say good day before you answer.", "Begin every answer with good day.", "You always say good day first.",
        "Start with good day.", "Wish a good day, then answer.", "A good day first, and then the answer.",
    ])),
    "plain": (lambda says, fact, v: says, dealt([
        "You know the village.", "You are a guide to the village.", "Answer the questions about the village.",
        "You are the guide of the village.", "Everything about the village is known to you.",
        "You live in the village.",
    ])),
}
FOLLOW_UPS = dealt([
    "And {x}?", "What about {x}?", "And what of {x}?", "The same for {x}?", "And for {x}?", "Now {x}.", "{x}, too?",
])
# fmt: on

CATEGORIES = ("property", "yes_no", "list", "comparison", "reverse", "rewriting")
TAUGHT = (*CATEGORIES, "comparison")  # twice: it takes two facts, and an eye on who was named first


@dataclass(frozen=True)
class Item:
    """One question with the one right answer. `given` is the text that the question is about, if there is one."""

    category: str
    question: str
    answer: str
    given: str = ""

    @property
    def prompt(self) -> str:
        return f"{self.question} {self.given}" if self.given else self.question


class Asker:
    """Asker of questions about some of the villagers, in one of the three sets of wordings."""

    def __init__(self, villagers: tuple[Villager, ...], split: str, seed: int) -> None:
        self.villagers = villagers
        self.split = split
        self.rng = random.Random(f"instructions {split} {seed}")

    def ask(self, category: str) -> Item:
        item: Item = getattr(self, f"ask_{category}")()
        return item

    def ask_property(self) -> Item:
        one, fact = self.someone(), self.rng.choice(FACTS)
        return Item("property", self.wording(PROPERTY[fact.key]).format(x=the(one)), sentence(plain(one, fact)))

    def ask_yes_no(self) -> Item:
        one, fact = self.someone(), self.rng.choice(FACTS)
        right = self.rng.random() < 0.5
        claimed = one if right else self.unlike(one, fact)
        question = self.wording(YES_NO).format(s=plain(claimed, fact, of=one), q=asked(claimed, fact, of=one))
        return Item("yes_no", question, sentence(f"{plain(one, fact)}, so {'yes' if right else 'no'}"))

    def ask_list(self) -> Item:
        one = self.someone()
        facts = self.rng.sample(FACTS, self.rng.choice([2, 3, 3]))
        question = self.wording(LIST).format(nouns=series([f"the {fact.noun}" for fact in facts]), x=the(one))
        return Item("list", upper_first(question), listing(one, facts))

    def ask_comparison(self) -> Item:
        (one, other), fact = self.pair(), self.rng.choice(FACTS)
        if self.rng.random() < 0.3 and one.years != other.years:
            older = max(one, other, key=lambda villager: villager.years)
            answer = f"{the(one)} is {one.age} and {the(other)} is {other.age}, so {the(older)} is older"
            return Item(
                "comparison", upper_first(self.wording(OLDER).format(x=the(one), y=the(other))), sentence(answer)
            )
        question = self.wording(COMPARE).format(noun=fact.noun, x=the(one), y=the(other))
        return Item("comparison", upper_first(question), sentence(f"{plain(one, fact)} and {plain(other, fact)}"))

    def ask_reverse(self) -> Item:
        one, fact = self.someone(), BY_KEY[self.rng.choice(["name", "treasure"])]
        return Item("reverse", self.wording(REVERSE[fact.key]).format(v=value(one, fact)), sentence(plain(one, fact)))

    def ask_rewriting(self) -> Item:
        one, fact = self.someone(), self.rng.choice(FACTS)
        turn, wordings = self.rng.choice(list(REWRITE.values()))
        turned = turn(one, fact)
        return Item(
            "rewriting",
            self.wording(wordings),
            turned if turned.endswith("?") else sentence(turned),
            sentence(plain(one, fact)),
        )

    # Conversations of more than a question and an answer.

    def formatted(self) -> list[dict[str, str]]:
        """Return a system prompt with a format for the answer, and an answer in that format."""
        shape, wordings = self.rng.choice(list(FORMATS.values()))
        one = self.someone()
        fact = self.rng.choice([f for f in FACTS if f.key != "home"])  # "by the mill" is never a single word
        question = self.wording(PROPERTY[fact.key]).format(x=the(one))
        answer = shape(sentence(plain(one, fact)), fact, value(one, fact))
        return [message("system", self.wording(wordings)), message("user", question), message("assistant", answer)]

    def follow_up(self) -> list[dict[str, str]]:
        """Return two questions. The second asks about another villager, more about "it", or something unrelated."""
        one, fact = self.someone(), self.rng.choice(FACTS)
        question = self.wording(PROPERTY[fact.key]).format(x=the(one))
        lot = self.rng.random()
        if lot < 0.35:
            other = self.rng.choice([v for v in self.villagers if v != one])
            then = upper_first(self.wording(FOLLOW_UPS).format(x=the(other)))
            answer = sentence(plain(other, fact))
        elif lot < 0.65:
            second = self.rng.choice([f for f in FACTS if f != fact])
            then, answer = self.wording(PROPERTY[second.key]).format(x="it"), sentence(plain(one, second))
        else:
            item = self.ask(self.rng.choice(CATEGORIES))
            then, answer = item.prompt, item.answer
        return [
            message("user", question),
            message("assistant", sentence(plain(one, fact))),
            message("user", then),
            message("assistant", answer),
        ]

    def single(self) -> list[dict[str, str]]:
        item = self.ask(self.rng.choice(CATEGORIES))
        return [message("user", item.prompt), message("assistant", item.answer)]

    # Drawing lots.

    def someone(self) -> Villager:
        return self.rng.choice(self.villagers)

    def unlike(self, one: Villager, fact: Fact) -> Villager:
        return self.rng.choice([v for v in self.villagers if value(v, fact) != value(one, fact)])

    def pair(self) -> list[Villager]:
        return self.rng.sample(self.villagers, 2)

    def wording(self, wordings: Wordings) -> str:
        return self.rng.choice(wordings[self.split])


def alpaca(world: World, seed: int, count: int) -> list[dict[str, str]]:
    """Return single questions for tuning, in alpaca form: a given text goes into `input`."""
    asker = Asker(world.tuning, "train", seed)
    rows = []
    for number in range(count):
        item = asker.ask(TAUGHT[number % len(TAUGHT)])
        rows.append({"instruction": item.question, "input": item.given, "output": item.answer})
    return rows


def conversations(world: World, split: str, seed: int, count: int) -> list[dict[str, list[dict[str, str]]]]:
    """Return conversations in messages form: half have a system prompt or a follow-up, half are single questions."""
    asker = Asker(world.tuning if split == "train" else world.validation, split, seed)
    kinds = [asker.formatted, asker.single, asker.follow_up, asker.single]
    return [{"messages": kinds[number % len(kinds)]()} for number in range(count)]


def evaluation(world: World, seed: int, per_category: int) -> list[dict[str, str]]:
    """Return the test: each question once, and equally many "yes" and "no" in the categories that have them."""
    asker = Asker(world.test, "test", seed)
    rows = []
    for category in CATEGORIES:
        asked_before: set[str] = set()
        yes_or_no = {"yes.": 0, "no.": 0}
        while len(asked_before) < per_category:
            item = asker.ask(category)
            verdict = item.answer.rsplit(" ", 1)[-1]
            if item.prompt in asked_before or yes_or_no.get(verdict, 0) > min(yes_or_no.values()):
                continue
            if verdict in yes_or_no:
                yes_or_no[verdict] += 1
            rows.append(
                {
                    "id": f"{category}-{len(asked_before):02}",
                    "category": category,
                    "question": item.prompt,
                    "answer": item.answer,
                }
            )
            asked_before.add(item.prompt)
    return rows


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def the(one: Villager) -> str:
    return f"the {one.animal}"
