"""The prompt templates of the attack."""

import pytest

from idia_core.errors import InvalidInputError
from idia_core.prompts import TEMPLATES, fill


def test_templates_are_the_papers_21() -> None:
    """There are 21 different templates, the bare name first, each with one place for the name."""
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 21
    assert TEMPLATES[0] == "{0}"
    assert TEMPLATES[4] == "a photo of a person named {0}"
    assert TEMPLATES[-1] == "{0} in a dress"
    assert all(template.count("{0}") == 1 for template in TEMPLATES)


def test_fill_is_template_major() -> None:
    """All names of the first template come before any of the second."""
    assert fill(["{0}", "actor {0}"], ["Jon Hamm", "Zoë Ball"]) == [
        "Jon Hamm",
        "Zoë Ball",
        "actor Jon Hamm",
        "actor Zoë Ball",
    ]


@pytest.mark.parametrize("name", ["{0}", "a{b}c", "{", "}}", "{name!r}", "%s"])
def test_fill_keeps_braces_in_names(name: str) -> None:
    """A name with braces comes out as it went in."""
    assert fill(["a photo of {0}"], [name]) == [f"a photo of {name}"]


def test_fill_refuses_a_template_without_a_place() -> None:
    """A template that would drop the name is an error that shows the template."""
    with pytest.raises(InvalidInputError, match="a photo of nobody"):
        fill(["{0}", "a photo of nobody"], ["Jon Hamm"])
