"""Short messages and the JSON that is wanted of them: the rows that `json.yaml` tunes on, and those it is measured on.

A message is one of eight kinds (a table booked, an order, a trip ...) and holds four fields. It is asked for some
of them, by their keys. Tuning and measuring share the weekdays and the keys, and nothing else: wordings, greetings,
names, places, things, numbers and combinations of keys are each in one of the two only.
"""

from __future__ import annotations

import itertools
import random
from typing import Any, NamedTuple

ASK = "Answer with one JSON object, its values copied from the message. Keys: {keys}.\n\n{message}"


class Kind(NamedTuple):
    """One kind of message: its fields, and its wordings by set, each with all the fields."""

    name: str
    fields: tuple[str, ...]
    wordings: dict[str, list[str]]


# fmt: off
KINDS = (
    Kind("table", ("name", "day", "time", "people"), {
        "train": [
            "I'd like a table for {people} on {day} at {time}, under the name {name}.",
            "This is {name}. Do you have room for {people} of us on {day}, around {time}?",
            "Please reserve for {people} people, {day}, {time}. The booking is for {name}.",
            "We are {people} and would love to come on {day} at {time}. My name is {name}.",
            "{name} here. {day} evening, {time}, {people} guests. Is that possible?",
            "Can you fit in a party of {people} at {time} on {day}? It would be under {name}.",
            "For {day} I need seats for {people}, {time} if you can. Name: {name}.",
            "It's my birthday on {day}, so {people} of us will turn up at {time}! Yours, {name}",
        ],
        "test": [
            "Could {name} have a table at {time} this {day}? There will be {people} of them.",
            "Dinner for {people}, please, and by the window: {day}, {time}. Signed, {name}",
            "On {day} my whole team, {people} in all, wants to eat with you at {time}. Ask for {name}.",
            "I am calling for {name}, who would like to dine on {day} at {time} with a group of {people}.",
            "Put {name} down for {day}. We sit down at {time} and number {people}.",
        ],
    }),
    Kind("order", ("name", "item", "quantity", "city"), {
        "train": [
            "Please send {quantity} of the {item} to {name} in {city}.",
            "I want to order the {item}, {quantity} pieces, delivered to {city}. My name is {name}.",
            "{name} from {city} here. I'll take {quantity} times the {item}.",
            "Could you ship the {item} to {city}? I need {quantity}. It goes to {name}.",
            "Order for {name}: {item}, quantity {quantity}, shipping to {city}.",
            "We love the {item}! Send us {quantity} more. Address it to {name}, {city}.",
            "My order: {quantity} x {item}. I live in {city}. {name}",
            "How long does delivery to {city} take? I would need the {item}, and {quantity} of it. Best, {name}",
        ],
        "test": [
            "Would you put {quantity} of your {item} in the post for {city}? The parcel is for {name}.",
            "I saw the {item} in your window and must have {quantity}. Deliver to {name} at {city}, please.",
            "A friend in {city}, {name}, is to get the {item} from me as a gift, {quantity} in number.",
            "Here is what {name} needs: the {item}, {quantity} altogether. We will collect it in {city}.",
            "Our shop in {city} has run out of the {item}. {quantity} should do. Yours, {name}",
        ],
    }),
    Kind("doctor", ("name", "doctor", "day", "time"), {
        "train": [
            "I need to see {doctor} on {day} at {time}. My name is {name}.",
            "This is {name}, can I come to {doctor} on {day}, say {time}?",
            "{name} would like an appointment with {doctor}: {day}, {time}.",
            "Please book me in with {doctor} for {time} on {day}. Thanks, {name}.",
            "My son has a fever. Is {doctor} free on {day} at {time}? We are under {name}.",
            "I have to move my visit to {doctor} to {day}, {time}. {name}",
            "Reminder for {name}: {doctor} expects you on {day} at {time}.",
            "Does {doctor} work on {day}? I could be there at {time}. It's {name}.",
        ],
        "test": [
            "Would {doctor} have a moment for me on {day}? {time} would suit best. I'm {name}.",
            "My knee hurts again, so {name} wants to be looked at by {doctor}, {day}, about {time}.",
            "Confirming: {day}, {time}, surgery of {doctor}, patient {name}.",
            "Sorry, I can't make it earlier than {time} on {day}. Tell {doctor} that {name} will be late.",
            "{doctor} asked me to return on {day} and I'd prefer {time}. You have me as {name}.",
        ],
    }),
    Kind("address", ("name", "phone", "street", "city"), {
        "train": [
            "My name is {name}, I live at {street} in {city}. Call me on {phone}.",
            "You can reach {name} at {street}, {city}, phone {phone}.",
            "New contact: {name}, {street}, {city}, {phone}.",
            "{name} moved to {city}, {street}. The number is {phone} now.",
            "Please update my address: {street}, {city}, telephone {phone}. {name}",
            "I'm in {city} until summer, at {street}. Ring {phone} and ask for {name}.",
            "Come to {street} if you want to meet {name} in {city}; {phone} works too.",
            "For questions about the house on {street} in {city}, {name} answers at {phone}.",
            "Here is my new number: {phone}. Greetings from {street}, {city}, yours {name}",
            "Send the papers to {name}, {street}, {city}. Should nobody be there, call {phone}.",
        ],
        "test": [
            "We met at the fair in {city}. I am {name}, my number is {phone}, and my door is {street}.",
            "Whoever finds this bag: it belongs to {name} of {city}. Text {phone} or bring it to {street}.",
            "Add {name} to the list, please. Mobile {phone}, home {street}, town {city}.",
            "The flat at {street} in {city} is still free! Get in touch through {phone}. {name}",
            "If nobody opens at {street}, try {phone}. That is how {name} in {city} can be found.",
            "Our new colleague {name} has rented {street} in {city}; the telephone there is {phone}.",
        ],
    }),
    Kind("trip", ("name", "from", "to", "day"), {
        "train": [
            "I want to travel from {from} to {to} on {day}. My name is {name}.",
            "One ticket {from} to {to}, {day}, for {name}, please.",
            "{name} needs a seat to {to} on {day}, leaving from {from}.",
            "Is there a train to {to} on {day}? I start in {from}. Thank you, {name}",
            "On {day} I fly from {from} to {to}. Please check in {name}.",
            "Book {name} on the {day} bus from {from} to {to}.",
            "My trip: {day}, start {from}, destination {to}. {name}",
            "{name} here: how much is it from {from} to {to} on {day}?",
        ],
        "test": [
            "Get me out of {from} on {day}! I have to be in {to} by night. It's {name}.",
            "{day} would be a good day to leave {from} and head for {to}, thinks {name}.",
            "The passenger is {name}; she boards at {from} and gets off at {to}. Date: {day}.",
            "Can {name} still change the journey to {to}? It begins in {from} this {day}.",
            "Going to {to} for a wedding, coming from {from}, {day} at the latest. Name of traveller: {name}.",
        ],
    }),
    Kind("repair", ("name", "device", "problem", "phone"), {
        "train": [
            "My {device} {problem}. Please call {phone}. {name}",
            "This is {name}. The {device} I bought last year {problem}. My number is {phone}.",
            "The {device} {problem} since this morning. I am {name}, phone {phone}.",
            "{name} reports that the {device} {problem}. Call back: {phone}.",
            "Can you repair a {device}? It {problem}. {name}, {phone}",
            "We have a {device} that {problem}. Ask for {name} at {phone}.",
            "The {device} in room two {problem}! {name}, you get me on {phone}.",
            "It's {name}, {phone}. Once more my {device} {problem}.",
        ],
        "test": [
            "I can't work because the {device} {problem}. Would you ring {name}, {phone}?",
            "Bad news from {name}: our {device} {problem}. We wait for your call on {phone}.",
            "What should I do with a {device} which {problem}? People call me {name}, dial {phone}.",
            "Every time I touch the {device}, it {problem}. Contact {name} under {phone}.",
            "Guarantee case. Customer {name}, telephone {phone}. Complaint: the {device} {problem}.",
        ],
    }),
    Kind("sale", ("item", "price", "city", "phone"), {
        "train": [
            "For sale in {city}: {item}, {price}. Call {phone}.",
            "I'm selling my {item} for {price}. Pick it up in {city}. Phone {phone}.",
            "{item}, hardly used, {price}, {city}. Tel. {phone}",
            "Who wants a {item}? {price} and it's yours. I'm in {city}, {phone}.",
            "The {item} must go: only {price}! Seen in {city}, ring {phone}.",
            "Looking for a new home for my {item}. Asking {price}. {city}, phone {phone}.",
            "{price} for a good {item}, that's a bargain. {phone}, {city}.",
            "Call {phone} if you like the {item}. It costs {price} and stands in {city}.",
        ],
        "test": [
            "Moving out of {city}, so the {item} needs a buyer. {price}, first come first served: {phone}.",
            "Would anyone pay {price} for a {item}? If so, {phone} is my number and {city} the place.",
            "Found in grandma's attic: a {item}. I'd let it go for {price}. Come to {city} or phone {phone}.",
            "Offer of the week at our {city} store is the {item} at {price}. Order by phone, {phone}.",
            "I paid double, you pay {price}: the {item}. Dial {phone} and visit me in {city}.",
        ],
    }),
    Kind("course", ("name", "course", "day", "price"), {
        "train": [
            "I'd like to sign up for the {course} class on {day}. I paid {price}. {name}",
            "{name} wants to join {course} on {day}; the fee is {price}.",
            "Is there a place left in {course} on {day}? {price} is fine. My name is {name}.",
            "Please put {name} on the list for {course}, {day}, {price}.",
            "The {course} course on {day} costs {price}, right? I'm {name}.",
            "Registration: {name}. Course: {course}. Day: {day}. Fee: {price}.",
            "My daughter {name} would love to learn {course}. Does {day} for {price} still stand?",
            "{day} is {course} day for {name}! I sent you {price}.",
        ],
        "test": [
            "Count me in for {course}! {day} suits me and so does {price}. I go by {name}.",
            "A friend told me about your {course} evenings each {day}. Here is {price} from {name}.",
            "I hear that {course} is taught every {day}. {name} would pay the {price} in cash.",
            "Enrol {name}, please: beginners' {course}, starting {day}, at {price}.",
            "Thanks for the {price} voucher! {name} will use it for {course} this {day}.",
        ],
    }),
)
# What stands before and behind a message. The empty ones are shared.
GREETINGS = {
    "train": ["", "", "Hi! ", "Hello, ", "Good morning. ", "Hi there, ", "Dear team, "],
    "test": ["", "", "Hey! ", "Good evening. ", "Greetings. ", "To whom it may concern: ", "Quick note: "],
}
ENDINGS = {
    "train": ["", "", "", " Thanks!", " Thank you very much.", " See you soon."],
    "test": ["", "", "", " Cheers!", " Much appreciated.", " Looking forward to it."],
}
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
FIRST_NAMES = {
    "train": "Carla Elena Hugo Irene Jonas Karin Liam Olga Rosa Samuel Tina Wendy Yusuf Amir "
             "Bella Chen Diego Fatima George Julia Kevin Marco Nina "
             "Omar Paula Simon Alan Brenda Clara Dennis Edith Fiona Gavin Hannah Isabel "
             "Lucas Megan Nathan Oscar Pamela Ralph Sofia Trevor Ursula "
             "Vera Walter Adam Beatrice Colin Daphne Eric Flora Gordon Harriet Ian Jane Karl "
             "Lydia Martin Nora Owen Philip Robert Violet Aisha Bruno "
             "Chloe Daniel Eva Fabian Gemma Henry Isaac Joan Kim Louis Monica Neil Olive "
             "Patrick Rebecca Sven Theresa Vincent Yvonne Andre Bridget "
             "Carlos Doris Agnes Boris Cecilia Dmitri Esther Felix Gloria Hassan Ingrid Jerome "
             "Katya Leonard Miriam Nelson Ottilie Priya Quentin Ruth "
             "Stefan Thelma",
    "test": "Anna Ben David Emma Frank Grace Helen Ivan Jack Kate Laura Maria "
            "Noah Peter Rachel Sarah Tom Victor William Zoe",
}
LAST_NAMES = {
    "train": "Diaz Fischer Garcia Hughes Ito Jensen Lopez Novak Owens Santos Vargas Ahmed "
             "Costa Dunn Ellis Ford Khan Nash Price Ross Shaw Torres "
             "Wright Allen Bauer Dean Foster Grant Hayes Klein Lang Meyer Olsen Patel Quinn "
             "Stone Webb Barnes Castillo Dixon Edwards Fleming Gibson "
             "Harper Ingram Jordan Keller Larsen Mendez Norris Okafor Pearson Ramirez Schmidt "
             "Thornton Upton Vogel Watkins Yamada Zimmer Arnold Blake "
             "Donovan Erickson Fuller Goodwin Henderson Irving Jefferson Kramer Lawson Marshall "
             "Nielsen Osborne Pacheco Robbins Silva Tucker Vaughn "
             "Whitman Bennett Crawford Dawson Ferrari Griffin Horvath Kaplan Lambert Maxwell "
             "Newton Palmer Rhodes Tyler Weber Abbott Bergman Chavez "
             "Dubois Eriksen Farrell Gupta Holloway Ivanova Jacobs Kowalski Lindgren Mbeki "
             "Nakamura Ortega Petrov Rossi Sinclair Tanaka Underwood",
    "test": "Adams Baker Brown Carter Clark Cooper Evans Green Hill Kelly Lee Miller "
            "Moore Parker Reed Stewart Turner Walker Wood Young",
}
CITIES = {
    "train": "Leeds Lyon Porto Hamburg Milan Bristol Geneva Austin Naples Cork Zurich Ghent "
             "Malaga Dresden York Bergen Perth Turin Genoa Bilbao "
             "Seville Warsaw Budapest Sofia Tallinn Riga Vilnius Minsk Odessa Cologne Bremen "
             "Leipzig Stuttgart Basel Bern Lausanne Graz Linz Trieste "
             "Parma Bath Oxford Cambridge Norwich Plymouth Glasgow Dundee Belfast Galway "
             "Limerick Houston Memphis Nashville Portland Tucson Omaha "
             "Tampa Atlanta Buffalo Cleveland Montreal Ottawa Calgary Halifax Antwerp Bruges "
             "Namur Lille Nantes Rennes Toulouse Bordeaux Grenoble "
             "Nice Dijon Tours Aarhus Odense Uppsala Malmo Turku Stavanger Trondheim Haarlem "
             "Leiden Delft Breda Arnhem Aberdeen Bologna Cardiff "
             "Detroit Exeter Florence Gdansk Helsinki Innsbruck Krakow Liverpool Marseille "
             "Nottingham Orlando Phoenix Rotterdam Salzburg Tampere "
             "Utrecht Verona",
    "test": "Boston Chicago London Paris Berlin Madrid Rome Dublin Vienna Oslo Seattle Toronto "
            "Sydney Miami Athens Lisbon Denver Dallas Munich Prague",
}
# An item is one of the first words and one of the second.
LOOKS = {
    "train": "blue round small heavy red white cheap leather wool glass wooden striped soft large silver black plain "
             "thin steel brown golden tall yellow cotton square",
    "test": "green pine copper velvet folding brass linen marble straw canvas",
}
NOUNS = {
    "train": "kettle table chair lamp blanket grinder bicycle knife bag clock frame teapot coat chessboard guitar "
             "shelf vase backpack toolbox pan mat rack towel tent "
             "stool train ring desk sofa carpet mug bucket basket drum piano bench cupboard jacket dress scarf belt "
             "wallet watch notebook pen brush broom tray plate bottle",
    "test": "parasol wardrobe saucepan cushion ladder candlestick curtain scooter "
            "sledge bust hat rod rucksack bowl stand crate",
}
DEVICES = {
    "train": "laptop printer fridge stove phone camera radio heater dishwasher television monitor keyboard router "
             "speaker drill blender mixer kettle fan lamp "
             "shaver modem microphone headset doorbell thermostat pump generator "
             "boiler dryer watch piano telescope treadmill",
    "test": "scanner toaster mower projector freezer tablet juicer sander",
}
PROBLEMS = {
    "train": ["does not start", "makes a loud noise", "keeps stopping", "is leaking", "smells burnt", "shows an error",
              "gets too hot", "won't switch off", "lost its settings", "has a cracked cover", "does not charge",
              "stays cold", "buzzes", "will not connect", "turns itself off", "flickers", "is stuck", "rattles",
              "has a broken cable", "shakes badly", "beeps without end", "runs too slowly", "has no sound",
              "fell on the floor"],
    "test": ["hums all night", "refuses to open", "gives off smoke", "only blinks red", "drips on the carpet",
             "crashes after a minute", "has stopped turning", "loses power"],
}
COURSES = {
    "train": "pottery Spanish yoga swimming photography chess salsa cooking drawing guitar knitting painting French "
             "German pilates boxing rowing singing baking "
             "gardening karate skiing climbing writing sewing Greek ballet judo archery",
    "test": "woodwork Italian fencing watercolour juggling tango bookbinding sailing",
}
STREETS = {
    "train": "Elm Maple Church Station Castle River Park Lake Bridge Market Queen Victoria Cedar Chestnut Garden "
             "Harbour Hill Mill Orchard Oxford Poplar Quarry "
             "Rose School Spring Temple Tower Union Valley Vine Walnut Willow "
             "Windsor Abbey Beech Canal Chapel Dover Ferry Forest",
    "test": "King High Oak Main Pine West North Summer Bell Water",
}
KINDS_OF_STREET = {"train": "Street Road Avenue Way Square", "test": "Lane Drive Court"}
# fmt: on


class Writer:
    """Writes the items of one set (`train` or `test`)."""

    def __init__(self, split: str, seed: int) -> None:
        self.split = split
        self.random = random.Random(f"{split} {seed}")

    def item(self, kind: Kind, keys: tuple[str, ...], wording: str) -> dict[str, Any]:
        """A question (`prompt`) and the answer that is wanted, by key; keys in the order that is asked for."""
        fields = {field: self._value(field) for field in kind.fields}
        while fields.get("from") == fields.get("to", ""):
            fields["to"] = self._value("to")
        message = self.random.choice(GREETINGS[self.split]) + wording.format(**fields)
        if ending := self.random.choice(ENDINGS[self.split]):
            message += ending if message.endswith((".", "?", "!")) else f".{ending}"
        answer = {key: fields[key] for key in self.random.sample(keys, len(keys))}
        return {"category": kind.name, "prompt": ASK.format(keys=", ".join(answer), message=message), "answer": answer}

    def _value(self, field: str) -> str:
        """Numbers are even in tuning and odd in measuring."""
        pick, is_test = self.random, self.split == "test"
        match field:
            case "name":
                return f"{self._any(FIRST_NAMES)} {self._any(LAST_NAMES)}"
            case "doctor":
                return f"Dr {self._any(LAST_NAMES)}"
            case "day":
                return pick.choice(WEEKDAYS)
            case "time":
                hour = pick.randint(1, 12)
                minutes = pick.choice(
                    ("10", "20", "40", "50") if is_test else ("00", "05", "15", "25", "30", "35", "45", "55")
                )
                return pick.choice([f"{hour}:{minutes} pm", f"{hour + 11}:{minutes}", f"{hour}:{minutes}"])
            case "people" | "quantity":
                return str(2 * pick.randint(1, 14) + is_test)
            case "city" | "from" | "to":
                return self._any(CITIES)
            case "phone":
                return (
                    f"0{pick.randint(60, 99) if is_test else pick.randint(10, 59)} "
                    f"{pick.randint(100, 999)} {pick.randint(100, 999)}"
                )
            case "price":
                amount = 2 * pick.randint(5, 250) + is_test
                return pick.choice([f"${amount}", f"{amount} euros", f"£{amount}"])
            case "item":
                return f"{self._any(LOOKS)} {self._any(NOUNS)}"
            case "device":
                return self._any(DEVICES)
            case "problem":
                return self._any(PROBLEMS)
            case "course":
                return self._any(COURSES)
            case "street":
                return f"{2 * pick.randint(1, 60) + is_test} {self._any(STREETS)} {self._any(KINDS_OF_STREET)}"
        raise ValueError(f"no such field: {field}")

    def _any(self, pools: dict[str, Any]) -> str:
        pool = pools[self.split]
        return self.random.choice(pool.split() if isinstance(pool, str) else pool)


def combinations(kind: Kind) -> dict[str, list[tuple[str, ...]]]:
    """Deal combinations of two, three and four keys by lot: two pairs and a triple to the test, the rest to tuning."""
    deal = random.Random(f"combinations {kind.name}")
    pairs, triples = (list(itertools.combinations(kind.fields, size)) for size in (2, 3))
    deal.shuffle(pairs)
    deal.shuffle(triples)
    return {"test": [*pairs[:2], triples[0]], "train": [*pairs[2:], *triples[1:], kind.fields]}


def items(split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` items, the kinds in turn, every wording and combination of keys as often as every other."""
    writer, written = Writer(split, seed), []
    for number in range(count):
        kind, turn = KINDS[number % len(KINDS)], number // len(KINDS)
        wordings, keys = kind.wordings[split], combinations(kind)[split]
        # Round by round every wording meets another combination.
        written.append(
            writer.item(kind, keys[(turn + turn // len(wordings)) % len(keys)], wordings[turn % len(wordings)])
        )
    return written
