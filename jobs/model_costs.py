"""What the stages from `train` on have to do: those that make models, or ask them."""

from typing import Any

from idia_core.sizes import UNKNOWN, Size
from jobs.estimates import Estimate, Estimator, Inputs, Work, architecture_of, device_of, pieces
from pipelines.train_config import runs

IMAGENET_PROMPTS = 1000 * 80  # classes x OpenAI's templates


def train(config: Any, inputs: Inputs) -> Estimate:
    """Architectures x sets."""
    sets = inputs["plan"].sets or inputs["ledger"].sets
    found = tuple(runs(config, sets)) if sets else ()
    architectures = tuple(run.architecture for run in found)
    makes = {"models": Size(len(found), architectures=architectures)} if sets else {}
    return Estimate(() if sets else (Work("train", UNKNOWN),), makes, found)


def models(config: Any, _inputs: Inputs) -> Estimate:
    """What is named."""
    names = tuple(architecture_of(model) for model in config.models)
    notes = ("Weights that are not here are fetched first; that is not counted.",)
    return Estimate((), {"models": Size(len(names), architectures=names)}, notes=notes)


def _on_models(config: Any, inputs: Inputs, pictures: float, texts: float, splits: float) -> list[Work]:
    """Pictures and texts that every model embeds."""
    device, found = device_of(config), inputs["models"].architectures
    if not found:
        return [Work("clip_pictures", UNKNOWN), Work("clip_texts", UNKNOWN)]
    work = list[Work]()
    for architecture in dict.fromkeys(found):
        count = found.count(architecture)
        work.append(Work(f"clip_pictures.{architecture}", count * pictures, count * splits, device))
        work.append(Work(f"clip_texts.{architecture}", count * texts, count, device))
    return work


def zeroshot(config: Any, inputs: Inputs) -> Estimate:
    """Labelled pictures and the prompts of their classes, for each model."""
    classes = len(config.class_names) if isinstance(config.class_names, tuple) else inputs["classes"].rows
    texts = classes * len(config.templates) if config.templates else IMAGENET_PROMPTS
    work = _on_models(config, inputs, inputs["pictures"].rows, texts, 1)
    models = inputs["models"].rows
    return Estimate(tuple(work), {"zeroshot": Size(models)}, rows_in=models * inputs["pictures"].rows)


def retrieval_rank(config: Any, inputs: Inputs) -> Estimate:
    """Pairs, for each model."""
    rows = inputs["pairs"].rows
    work, models = _on_models(config, inputs, rows, rows, 1), inputs["models"].rows
    return Estimate(tuple(work), {"retrieval_rank": Size(models)}, rows_in=models * rows)


def attack(config: Any, inputs: Inputs) -> Estimate:
    """The pictures of those who take part and the names in all templates, for each model."""
    people, templates, models = inputs.tested(), len(config.templates), inputs["models"].rows
    panel = inputs["panel_pictures"].rows if "panel_pictures" in inputs else 0.0
    pictures, prompts = inputs.pictures(), config.candidates * templates
    blocks = pieces(people, config.people_per_split)
    work = _on_models(config, inputs, pictures + panel, prompts, blocks)
    votes = Size(models * pictures * templates, architectures=inputs["models"].architectures)
    makes = {"votes": votes, "panel_votes": Size(models * panel * templates), "asked": Size(people)}
    makes |= {"names": Size(config.candidates)}
    return Estimate(tuple(work), makes, rows_in=models * (pictures + panel))


def judge(_config: Any, inputs: Inputs) -> Estimate:
    """All votes at once."""
    votes = inputs["votes"].rows + inputs["panel_votes"].rows
    return Estimate(
        (Work("judge", votes),), {"verdicts": Size(inputs["asked"].rows * inputs["models"].rows)}, rows_in=votes
    )


def evaluate(_config: Any, inputs: Inputs) -> Estimate:
    """The votes of one model after another."""
    models = len(inputs["votes"].architectures) or 1
    return Estimate((Work("evaluate", inputs["votes"].rows, models),), rows_in=inputs["votes"].rows)


def evidence(config: Any, inputs: Inputs) -> Estimate:
    """A page for each person."""
    people = inputs["asked"].rows
    return Estimate((Work("evidence", people, pieces(people, config.people_per_split)),), rows_in=people)


def once(kind: str) -> Estimator:
    """A stage that is one small piece of work, whatever its inputs' sizes are."""
    return lambda _config, _inputs: Estimate((Work(kind, 1),))


OF_MODELS: dict[str, Estimator] = {
    "train": train,
    "models": models,
    "zeroshot": zeroshot,
    "retrieval_rank": retrieval_rank,
    "attack": attack,
    "judge": judge,
    "evaluate": evaluate,
    "evidence": evidence,
    "figures": once("figures"),
    "report": once("report"),
}
"""How their work is estimated."""
