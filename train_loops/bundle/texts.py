"""Sentences to speak: short, song-like English made from templates, so that no text of others is needed."""

from __future__ import annotations

import numpy as np

NOUNS = """
river mountain window garden lantern morning evening shadow whisper thunder feather ocean harbour mirror
candle meadow stranger children father mother daughter sister brother captain soldier teacher village castle
bridge engine paper letter pocket button bottle table kitchen pillow blanket orange apple cherry honey butter
sugar coffee water fire stone silver copper leather cotton moon sun star cloud rain snow wind storm summer
winter autumn spring heart hand eye face voice song dance dream road journey station airplane bicycle carriage
horse dog cat bird fish fox wolf bear lion tiger measure treasure pleasure vision birthday valley bog tree
branch leaf twig nest egg wing church judge badge zoo youth earth mouth truth breath cloth path bath toy boy
noise choice house mouse cow crowd ground sound town chair share year beard cure tour king ring thing bank
song tongue box axe desk mask lamp map cup book foot bush wool school moon fruit juice shoe queen wheel tea
bee street sheep ship hill bill ball wall door floor shore thought daughter law
""".split()  # noqa: SIM905
ADJECTIVES = """
little happy lonely golden broken silent hollow gentle bitter yellow purple heavy narrow empty early ancient
modern foolish clever careful cheerful dangerous beautiful terrible wonderful ordinary strange quiet loud
bright dark cold warm dear sweet young old new long short high low deep rare thin thick smooth rough sharp
square round pure huge major usual foreign familiar proud shy brave wise kind wild poor rich
""".split()  # noqa: SIM905
VERBS = """
follow carry remember forget discover imagine gather borrow answer measure finish polish challenge encourage
believe receive forgive deliver sing bring hold leave watch touch teach catch push pull pray play say give
take make break wake shake know show throw grow hear fear share wear burn turn learn choose lose use move
prove love trust judge join enjoy destroy allow vow doubt surround explore adore ignore call draw walk talk
thank think drink wash wish fix mix
""".split()  # noqa: SIM905
PLACES = [
    "under the bridge",
    "over the hills",
    "down in the valley",
    "across the sea",
    "behind the door",
    "beside the fire",
    "in the morning",
    "at the end of the year",
    "by the light of the moon",
    "through the open window",
    "all night long",
    "up above the world so high",
    "near the old church",
    "around the corner",
    "without a word",
    "before the dawn",
    "after the rain",
    "between you and me",
]
LINES = [
    "Oh, how I wonder what you are.",
    "Happy days are here again.",
    "Sing me a song of the wide open road.",
    "La la la, la la la, la la lee.",
    "Ooh, ah, oh, who are you?",
    "I hear you calling my name.",
    "We shall be free, you and I.",
    "Do you remember the first of July?",
    "Row, row, row your boat, gently down the stream.",
    "Good morning to you, good night to you.",
    "Hush now, my baby, do not cry.",
    "She walks alone along the shore.",
    "Why do you leave me here?",
    "Away, away, we go away.",
    "Every little thing is going to be fine.",
    "Zero, one, two, three, four, five, six, seven, eight, nine, ten.",
    "There was a tree in a hole in the ground.",
    "Yeah, you know I love you so.",
    "Joy to the fishes in the deep blue sea.",
    "Hallelujah, amen.",
]


def sentence(random: np.random.Generator) -> str:
    """One sentence from a template."""

    def pick(words: list[str]) -> str:
        return str(random.choice(words))

    forms = [
        lambda: f"The {pick(ADJECTIVES)} {pick(NOUNS)} and the {pick(NOUNS)} {pick(VERBS)} {pick(PLACES)}.",
        lambda: f"I {pick(VERBS)} the {pick(ADJECTIVES)} {pick(NOUNS)} {pick(PLACES)}.",
        lambda: f"Will you {pick(VERBS)} a {pick(NOUNS)} with me, my {pick(ADJECTIVES)} {pick(NOUNS)}?",
        lambda: (
            f"{pick(PLACES).capitalize()}, they {pick(VERBS)} and they {pick(VERBS)}, "
            f"{pick(ADJECTIVES)} and {pick(ADJECTIVES)}."
        ),
        lambda: f"Oh, {pick(VERBS)} me, {pick(ADJECTIVES)} {pick(NOUNS)}, {pick(VERBS)} me {pick(PLACES)}.",
        lambda: f"No {pick(NOUNS)} could ever {pick(VERBS)} her {pick(ADJECTIVES)} {pick(NOUNS)}!",
        lambda: f"He said: {pick(VERBS)} my {pick(NOUNS)}, {pick(VERBS)} your {pick(NOUNS)}.",
        lambda: pick(LINES),
    ]
    return str(forms[random.integers(len(forms))]())


def passage(seed: int, index: int) -> str:
    """Two or three sentences, about 8 to 11 seconds of speech; the same for the same seed and index."""
    random = np.random.default_rng([seed, index])
    return " ".join(sentence(random) for _ in range(int(random.integers(2, 4))))
