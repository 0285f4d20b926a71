"""The text of the built-in world: invented people, captions of their pictures, and a caption collection."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idia_core import phrases
from idia_core.captions import NameMatcher
from idia_core.errors import InvalidInputError
from idia_core.identities import IDENTITIES
from idia_core.names import LAST_NAMES, invent_names, mixed_name, name_key
from idia_core.occurrences import COUNTS, count_matches

CAPTIONS = pa.schema(
    [  # the columns of LAION-400M
        pa.field("SAMPLE_ID", pa.int64(), nullable=False),
        pa.field("URL", pa.string(), nullable=False),
        pa.field("TEXT", pa.string()),
        pa.field("NSFW", pa.string()),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)
PLANTED = COUNTS
"""The truth about planted captions: how many hold each name under the paper's and under the strict rule."""

NULL_SHARE = 1 / 500  # of the captions
MANY = 300  # the paper leaves people out who occur more often
ENDINGS = ("mond", "son", "field", "ski")
"""What makes another name of a name, as Jon Hammond of Jon Hamm."""


def invent_identities(count: int, seed: int) -> pa.Table:
    """`count` invented people as IDENTITIES, women and men in turn; the first n do not depend on `count`.

    Most names are English; some have accents, a hyphen, or a middle initial with a dot (as "Johannes B. Kerner", which
    the paper's rule reads as a pattern). No name is inside another one.
    """
    names: list[str] = []
    keys: list[str] = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        while True:
            name = mixed_name(i, "FM"[i % 2], rng)
            key = name_key(name)
            if not any(key in other or other in key for other in keys):
                break
        names.append(name)
        keys.append(key)
    rows = [{"identity": name, "name": name, "sex": "FM"[i % 2]} for i, name in enumerate(names)]
    return pa.Table.from_pylist(rows, IDENTITIES)


def _compose(sentence: str, sex: str | None, rng: np.random.Generator) -> str:
    """The sentence with every field but the name filled in."""
    roles = phrases.ROLES[sex]
    filled = sentence.replace("{his}", phrases.POSSESSIVES[sex]).replace("{role}", roles[rng.integers(len(roles))])
    for field, words in phrases.WORDS.items():
        filled = filled.replace(f"{{{field}}}", words[rng.integers(len(words))])
    return filled


def pair_caption(name: str, sex: str | None, seed: Sequence[int]) -> str:
    """A caption for a picture of the person, with the name in it exactly once; the same for the same seed.

    One of 66 sentences with a place, event, year or role; none is one of the attack's templates. `sex` is 'F', 'M',
    or None where it is not known. Raises InvalidInputError when the name is a word of the sentences themselves.
    """
    rng = np.random.default_rng(seed)
    for _ in range(100):
        sentence = phrases.PERSON_SENTENCES[rng.integers(len(phrases.PERSON_SENTENCES))]
        caption = _compose(sentence, sex, rng).replace("{name}", name)
        if caption.count(name) == 1:
            return caption
    raise InvalidInputError(f"the name {name!r} is in the captions already", fix="Give the person a longer name.")


def anonymous_caption(sex: str | None, seed: Sequence[int]) -> str:
    """A caption as Conceptual Captions has them: of a picture of somebody, whom it calls by a role only."""
    rng = np.random.default_rng(seed)
    sentence = phrases.PERSON_SENTENCES[rng.integers(len(phrases.PERSON_SENTENCES))]
    roles = phrases.ROLES[sex]
    return _compose(sentence, sex, rng).replace("{name}", roles[rng.integers(len(roles))])


def planted_counts(people: int, seed: int) -> list[int]:
    """How many captions hold each name exactly, skewed as in the world: a third 0, others up to 300, one in 16 more.

    At least one is over 300.
    """
    rng = np.random.default_rng([seed, 0])
    nobody, many = people // 3, max(1, people // 16)
    some = np.exp(rng.uniform(0, np.log(MANY), people - nobody - many)).astype(int)
    counts = np.concatenate([np.zeros(nobody, dtype=int), some, rng.integers(MANY + 1, MANY + 120, many)])
    return [int(count) for count in rng.permutation(counts)]


def _near_misses(name: str, rng: np.random.Generator) -> list[str]:
    """Texts that resemble the name, each one to three times; no text holds it under the strict rule."""
    misses = [name + ENDINGS[rng.integers(len(ENDINGS))], ("x", "Mc", "ex")[rng.integers(3)] + name]
    first, _, rest = name.partition(" ")
    if rest:
        other = LAST_NAMES[rng.integers(len(LAST_NAMES))]
        misses += [first, f"{first} {other}" if other != rest else f"{first} {other}man"]
    if "." in name:
        misses.append(name.replace(".", "oxe"[rng.integers(3)]))
    return [miss for miss in misses for _ in range(rng.integers(1, 4))]


def _truth(names: Sequence[str], planted: Sequence[str]) -> pa.Table:
    """The planted texts counted by each rule with `re` alone, name by name, as PLANTED."""
    texts, times = np.unique(np.array(planted, dtype=object), return_counts=True)
    counts: list[list[int]] = []
    for rule in (str, lambda name: rf"(?<!\w){re.escape(name)}(?!\w)"):
        searches = [re.compile(rule(name)).search for name in names]
        counts.append([int(times[[search(text) is not None for text in texts]].sum()) for search in searches])
    return pa.table([pa.array(names, pa.string()), *counts], schema=PLANTED)


def _written(sentences: Sequence[str], words: dict[str, pa.Array], rows: int, rng: np.random.Generator) -> pa.Array:
    """One caption a row from the sentences, their fields filled from `words`; `name` goes by row, the rest is drawn."""
    which = rng.integers(len(sentences), size=rows)
    captions: list[pa.Array] = []
    for number, sentence in enumerate(sentences):
        mine = np.flatnonzero(which == number)
        columns: list[str | pa.Array] = []
        for position, part in enumerate(re.split(r"\{(\w+)\}", sentence)):
            if position % 2 == 0:
                columns.append(part)
            else:
                drawn = mine if part == "name" else rng.integers(len(words[part]), size=len(mine))
                columns.append(words[part].take(pa.array(drawn)))
        captions.append(pc.binary_join_element_wise(*columns, ""))
    return pa.concat_arrays(captions).take(pa.array(np.argsort(np.argsort(which, kind="stable"))))


def _background(names: Sequence[str], words: dict[str, pa.Array], rows: int, rng: np.random.Generator) -> pa.Array:
    """Captions about other things and people, none of which holds a name under either rule."""
    captions = _written(phrases.OTHER_SENTENCES, words, rows, rng)
    hit = np.unique(NameMatcher(names).scan(captions).matches["row"].to_numpy())
    clean = np.setdiff1d(np.arange(rows), hit)
    if not len(clean) and rows:
        raise InvalidInputError("a name is in every background caption", fix="Give people longer names.")
    source = np.arange(rows)
    source[hit] = rng.choice(clean, len(hit))
    return captions.take(pa.array(source))


def plant_captions(
    names: Sequence[str], rows: int, seed: int, counts: Sequence[int] | None = None
) -> tuple[pa.Table, pa.Table]:
    """A caption collection (CAPTIONS, `rows` rows) in which each name is planted, and the truth about it (PLANTED).

    `counts[i]` captions hold `names[i]` exactly (drawn by `planted_counts` unless given); each name has near-misses
    beside them: longer ("Jon Hammond"), glued ("xJon Hamm"), other surnames, another character at a dot. The truth
    also counts a name that is inside another one. A few captions are null. Raises InvalidInputError when the planted
    captions do not fit, or when a name is a word that the sentences themselves are made of.
    """
    rng = np.random.default_rng([seed, 1])
    exact = planted_counts(len(names), seed) if counts is None else counts
    planted = [name for name, count in zip(names, exact, strict=True) for _ in range(count)]
    planted += [miss for name in names for miss in _near_misses(name, rng)]
    nulls = int(rows * NULL_SHARE)
    if len(planted) + nulls > rows:
        raise InvalidInputError(
            f"{len(planted)} planted and {nulls} null captions do not fit into {rows}", fix="Ask for more captions."
        )
    words = _word_columns(names, seed)
    sentences = phrases.PERSON_SENTENCES + phrases.TITLE_SENTENCES
    written = _written(sentences, {**words, "name": pa.array(planted, pa.string())}, len(planted), rng)
    truth = _truth(names, planted)
    if count_matches(NameMatcher(names).scan(written).matches, names) != truth:
        raise InvalidInputError("a name is in the sentences themselves", fix="Give people longer names.")
    background = _background(names, words, rows - nulls - len(planted), rng)
    texts = pa.concat_arrays([written, background, pa.nulls(nulls, pa.string())])
    return _collection(texts.take(pa.array(rng.permutation(rows))), rng), truth


def _word_columns(names: Sequence[str], seed: int) -> dict[str, pa.Array]:
    """What each field of a sentence is filled from; `person` holds people other than those named."""
    words = {field: pa.array(values) for field, values in phrases.WORDS.items()}
    words["person"] = pa.array(invent_names(400, seed, avoid=names))
    words["role"] = pa.array([*phrases.ROLES["F"], *phrases.ROLES["M"]])
    words["his"] = pa.array(list(phrases.POSSESSIVES.values()))
    return words


def _collection(texts: pa.Array, rng: np.random.Generator) -> pa.Table:
    """The captions with the other columns of LAION-400M; every host is reserved for examples."""
    rows = len(texts)
    sample_ids = pa.array(np.cumsum(rng.integers(1, 1000, rows)) + 10**11)
    hosts = pa.array(["example.org", "example.com", "example.net"]).take(pa.array(rng.integers(3, size=rows)))
    urls = pc.binary_join_element_wise("https://img.", hosts, "/", sample_ids.cast(pa.string()), ".jpg", "")
    ratings = pa.array(["UNLIKELY", "UNSURE", "NSFW", None])
    nsfw = ratings.take(pa.array(rng.choice(4, rows, p=[0.93, 0.05, 0.01, 0.01])))
    similarity = rng.uniform(0.28, 0.45, rows).astype(np.float32)
    return pa.table([sample_ids, urls, texts, nsfw, similarity], schema=CAPTIONS)
