"""English-like text from a small grammar, as much as one wants: training text that nobody holds rights in."""

from __future__ import annotations

import numpy as np

__all__ = ["characters", "write"]

_WORDS = {
    "ship": ["ketch", "brig", "ferry", "sloop", "tug", "barge", "cutter", "trawler"],
    "place": ["harbour", "estuary", "lighthouse", "sandbank", "strait", "quay", "lagoon", "headland"],
    "weather": ["fog", "rain", "a squall", "bright sun", "a cold wind", "low cloud", "heavy swell", "still air"],
    "verb": ["left", "passed", "reached", "circled", "approached", "avoided", "crossed", "watched"],
    "people": ["pilot", "mate", "captain", "cook", "keeper", "surveyor", "diver", "stoker"],
    "said": ["noted", "wrote", "reported", "thought", "insisted", "remembered"],
    "quality": ["old", "grey", "narrow", "quiet", "distant", "shallow", "busy", "broken"],
    "when": ["at dawn", "before noon", "after dark", "on monday", "in the evening", "all night"],
}
_FORMS = (
    "{when} the {ship} {verb} the {quality} {place} in {weather}.",
    "the {people} {said} that the {quality} {ship} {verb} the {place}.",
    "{weather} lay over the {place}, and the {people} {said} it twice.",
    "no {ship} {verb} the {place} {when}; the {people} {said} as much.",
    "near the {quality} {place} a {quality} {ship} {verb} another {ship}.",
)


def write(length: int, seed: int) -> str:
    """Exactly `length` characters of sentences; the same seed writes the same text.

    >>> write(45, seed=1) == write(60, seed=1)[:45]
    True
    """
    rng = np.random.default_rng(seed)
    parts: list[str] = []
    written = 0
    while written < length:
        form = _FORMS[rng.integers(len(_FORMS))]
        sentence = form
        for slot, words in _WORDS.items():
            while "{" + slot + "}" in sentence:
                sentence = sentence.replace("{" + slot + "}", words[rng.integers(len(words))], 1)
        parts.append(sentence + " ")
        written += len(parts[-1])
    return "".join(parts)[:length]


def characters() -> str:
    """Every character that the grammar can write, sorted.

    >>> characters()[:4]
    ' ,.;'
    """
    words = "".join(word for words in _WORDS.values() for word in words)
    return "".join(sorted(set(words + " ,.;" + "".join(_FORMS)) - set("{}")))
