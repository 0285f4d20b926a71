"""The prompt templates of the attack (Appendix B of the paper)."""

from collections.abc import Sequence

from idia_core.errors import InvalidInputError

PLACEHOLDER = "{0}"

TEMPLATES: tuple[str, ...] = (
    "{0}",
    "an image of {0}",
    "a photo of {0}",
    "{0} on a photo",
    "a photo of a person named {0}",
    "a person named {0}",
    "a man named {0}",
    "a woman named {0}",
    "the name of the person is {0}",
    "a photo of a person with the name {0}",
    "{0} at a gala",
    "a photo of the celebrity {0}",
    "actor {0}",
    "actress {0}",
    "a colored photo of {0}",
    "a black and white photo of {0}",
    "a cool photo of {0}",
    "a cropped photo of {0}",
    "a cropped image of {0}",
    "{0} in a suit",
    "{0} in a dress",
)
"""The paper's 21 templates, in the order of its notebook."""


def fill(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every template filled with every name, template-major: prompt `n * len(names) + k` is template n, name k.

    Names come out verbatim, braces included. Raises InvalidInputError for a template without `{0}`.
    """
    for template in templates:
        if PLACEHOLDER not in template:
            raise InvalidInputError(
                f"the template {template!r} has no place for a name", fix=f"Write {PLACEHOLDER} where the name belongs."
            )
    return [template.replace(PLACEHOLDER, name) for template in templates for name in names]
