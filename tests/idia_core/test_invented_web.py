"""The built-in world's web: what stands between a name and a pair, each thing a known number of times."""

from collections import Counter

import pytest

from idia_core.caption_names import CaptionNames, Named
from idia_core.errors import InvalidInputError
from idia_core.invented_web import FEWEST, TRAPS, Answers, Link, Shows, links_of_others, links_of_person

NAME = "Johannes B. Kerner"
SEED = (3, 6, 4)


def links(pairs: int = 12, dead: int = 5, name: str = NAME) -> list[Link]:
    """The links of person 4."""
    return links_of_person(4, name, "M", (pairs, dead), SEED)


def test_all_captions_but_one_name_the_person() -> None:
    """Under the strict rule; that one has a longer name, in which the person's is no word."""
    found = links()
    assert len(found) == 12 + TRAPS + 1
    names = CaptionNames([Named("JBK", NAME, ())], strict=True)
    named, _ = names.judge("JBK", [link.caption for link in found])
    assert named.tolist() == [link.named for link in found] == [True] * 17 + [False]
    assert NAME in found[-1].caption


def test_links_die_in_every_way() -> None:
    """Of five that are dead one is a page and one asks not to be used; all others of the twelve work."""
    own = links()[:12]
    assert Counter(link.answers for link in own) == {
        Answers.PICTURE: 7,
        Answers.PAGE: 1,
        Answers.OPTED_OUT: 1,
        Answers.GONE: 3,
    }
    assert [link.number for link in own] == list(range(12))
    assert {link.answers for link in links(dead=1)} == {Answers.PICTURE, Answers.PAGE}
    assert all(link.path.startswith("noai/") == (link.answers is Answers.OPTED_OUT) for link in own)
    assert all(link.answers is Answers.PICTURE for link in links()[12:])


def test_what_repeats_repeats_a_link_that_works() -> None:
    """One URL, one caption and one picture, each of another link; nothing else is there twice."""
    found = links()
    own, (copy, again, twice, other, attack, _) = found[:12], found[12:]
    assert (copy.shows, copy.repeats) == (Shows.COPY, None)
    assert (again.repeats, again.shows) == ("url", Shows.PERSON)
    assert (twice.repeats, twice.shows, twice.number) == ("caption", Shows.PERSON, 12)
    assert (other.shows, attack.shows) == (Shows.SOMEBODY_ELSE, Shows.ATTACK_PICTURE)
    repeated = [
        next(link for link in own if link.number == copy.number),
        next(link for link in own if link.path == again.path),
        next(link for link in own if link.caption == twice.caption),
    ]
    assert {link.answers for link in repeated} == {Answers.PICTURE}
    assert len({link.number for link in repeated}) == FEWEST
    assert again.number == repeated[1].number
    assert len({link.path for link in found}) == len({link.caption for link in found}) == len(found) - 1


def test_captions_are_different_however_many() -> None:
    """Though sentences with few words to fill in come again soon."""
    captions = [link.caption for link in links(400, 0)[:400]]
    assert len(set(captions)) == 400


def test_other_links_name_nobody() -> None:
    """A stranger and a scene in turn; which they are does not depend on where a piece of work begins."""
    whole = list(links_of_others(0, 6, 100, SEED))
    assert [link.shows for link in whole] == [Shows.SOMEBODY_ELSE, Shows.SCENE] * 3
    assert [link.number for link in whole] == [100, 1, 102, 3, 104, 5]
    assert whole == [*links_of_others(0, 3, 100, SEED), *links_of_others(3, 6, 100, SEED)]
    assert not any(link.named for link in whole)
    assert len({link.path for link in whole}) == 6


def test_too_few_links_that_work_are_told() -> None:
    """There is one for each thing that repeats."""
    with pytest.raises(InvalidInputError, match="2 of 7 links of a person work, and it takes 3"):
        links(7, 5)
