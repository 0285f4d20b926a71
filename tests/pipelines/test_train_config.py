"""The settings of `train`, and the runs that they make."""

import json
import sys
from typing import Any

import pytest

from idia_core.config import validate
from idia_core.errors import ConfigError
from idia_core.training import TrainingRecipe
from pipelines.train_config import Run, TrainConfig, length_of, runs

SETS = [("K075", 75, 2_870_000), ("K005", 5, 2_863_000), ("K001", 1, 2_862_600)]
ARCHITECTURES = ["ViT-B-32", "RN50", "RN50x4"]


def config(**fields: Any) -> TrainConfig:
    """The settings as a study gives them."""
    return validate(TrainConfig, fields, "stage train")


def models(made: TrainConfig) -> list[str]:
    """The runs' names in their order."""
    return [run.model for run in runs(made, SETS)]


def started(made: TrainConfig) -> list[str]:
    """The runs' names in the order in which they start."""
    return [run.model for run in sorted(runs(made, SETS), key=lambda run: -length_of(run, made))]


def test_the_defaults_are_the_papers_three_architectures_on_every_set() -> None:
    """By the number of pairs, and of one set in the config's order; each recipe has its architecture and the seed."""
    made = config(seed=4)
    assert models(made) == [f"{architecture}_{k}" for k, _, _ in SETS for architecture in ARCHITECTURES]
    first = runs(made, SETS)[1]
    recipe = TrainingRecipe(architecture="RN50", seed=4)
    assert first == Run(
        model="RN50_K075",
        architecture="RN50",
        set="K075",
        images_per_member=75,
        pairs=2_870_000,
        samples=2_870_000,
        recipe=recipe,
    )
    assert (made.resources.gpus, made.exactly_once, made.resources.workers) == (8, True, None)


def test_a_single_architecture_leaves_the_models_their_sets_names() -> None:
    """As before there were several."""
    assert models(config(architectures=["RN50"])) == ["K075", "K005", "K001"]


def test_the_longest_run_starts_first_where_the_rates_are_known() -> None:
    """By hours: pairs x epochs over the rate of all processes; with a rate missing by pairs x epochs alone.

    Their places in the plan, which name their files, stay the same.
    """
    rates = {"ViT-B-32": 1000, "RN50": 500, "RN50x4": 200}
    made = config(resources={"pairs_per_second": rates})
    assert started(made) == [f"{architecture}_{k}" for architecture in ARCHITECTURES[::-1] for k, _, _ in SETS]
    assert runs(made, SETS)[0].hours(200) == pytest.approx(2_870_000 * 50 / (200 * 8) / 3600)
    more = [{"architecture": "RN50x4", "recipe": {"processes": 64}}]
    assert started(config(overrides=more, resources={"pairs_per_second": rates}))[0] == "RN50_K075"
    del rates["RN50"]
    assert started(config(resources={"pairs_per_second": rates})) == started(config())
    longer = [{"architecture": "RN50", "images_per_member": 1, "recipe": {"epochs": 51}}]
    assert started(config(overrides=longer))[0] == "RN50_K001"
    assert started(config(resources={"pairs_per_second": 3})) == started(config())
    rates["RN50"] = 500
    assert models(config(resources={"pairs_per_second": rates})) == models(config())


def test_overrides_change_the_recipes_of_the_runs_they_name() -> None:
    """Those of an architecture, of a K, or of both; of two the later counts, and other fields stay."""
    made = config(
        recipe={"learning_rate": 0.002, "extra_flags": ["--grad-clip-norm", "1"]},
        overrides=[
            {"architecture": "RN50x4", "recipe": {"batch_size_per_process": 64, "processes": 16}},
            {"images_per_member": 1, "recipe": {"epochs": 7}},
            {"architecture": "RN50x4", "images_per_member": 1, "recipe": {"epochs": 9, "extra_flags": []}},
        ],
    )
    found = {run.model: run.recipe for run in runs(made, SETS)}
    assert {model: recipe.epochs for model, recipe in found.items() if recipe.epochs != 50} == {
        "ViT-B-32_K001": 7,
        "RN50_K001": 7,
        "RN50x4_K001": 9,
    }
    assert {model for model, recipe in found.items() if recipe.processes == 16} == {
        f"RN50x4_{name}" for name, _, _ in SETS
    }
    assert all(recipe.learning_rate == 0.002 and recipe.global_batch_size == 1024 for recipe in found.values())
    assert [model for model, recipe in found.items() if not recipe.extra_flags] == ["RN50x4_K001"]


def test_equal_steps_are_those_of_the_largest_set() -> None:
    """Every run then has as many steps, and the pairs of its set are still known."""
    equal = runs(config(equal_steps=True, exactly_once=False), SETS)
    assert {run.samples for run in equal} == {2_870_000}
    assert {run.pairs for run in equal} == {pairs for _, _, pairs in SETS}
    assert {run.steps for run in equal} == {2804 * 50}
    assert {run.steps for run in runs(config(), SETS)} == {2804 * 50, 2796 * 50}


def test_steps_are_counted_as_open_clip_does() -> None:
    """Batches of an epoch are rounded up, over all ranks and then over the loaders of each."""
    recipe = {"epochs": 2, "processes": 2, "batch_size_per_process": 5, "device": "cpu", "loaders_per_process": 2}
    found = runs(config(architectures=["idia-rn-tiny"], recipe=recipe), [("K001", 1, 101)])
    assert found[0].steps == 2 * 12


def test_a_run_comes_back_from_json() -> None:
    """It travels as a split."""
    for run in runs(config(recipe={"extra_flags": ["--grad-clip-norm", "1"]}), SETS):
        assert Run.model_validate(json.loads(json.dumps(run.model_dump(mode="json")))) == run


def test_a_runs_digest_changes_with_its_recipe_and_its_data() -> None:
    """And with nothing else."""
    run = runs(config(), SETS)[0]
    other = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 51})})
    assert run.digest("a") == runs(config(resources={"max_restarts": 9, "cpus": 3}), SETS)[0].digest("a")
    assert len({run.digest("a"), run.digest("b"), other.digest("a")}) == 3


@pytest.mark.parametrize(
    ("fields", "gpus"),
    [
        ({"recipe": {"device": "cpu"}}, 0),
        ({"recipe": {"processes": 4}}, 4),
        ({"resources": {"nodes": 2, "placement": "SPREAD"}}, 4),
        (
            {
                "overrides": [{"architecture": "RN50x4", "recipe": {"processes": 16}}],
                "resources": {"nodes": {"RN50x4": 2}, "placement": "SPREAD"},
            },
            8,
        ),
        ({"overrides": [{"images_per_member": 1, "recipe": {"processes": 16}}]}, 16),
    ],
)
def test_the_gpus_of_a_node_follow_from_the_recipe(fields: dict[str, Any], gpus: int) -> None:
    """Of the largest run; given as it is, it is accepted."""
    made = config(**fields)
    assert made.resources.gpus == gpus
    assert config(**fields | {"resources": made.resources.model_dump(mode="json")}) == made


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": []}, "field 'architectures'"),
        ({"architectures": ["RN50", "RN50"]}, "an architecture is given twice"),
        ({"architectures": ["RN50x5"]}, "no architecture 'RN50x5' .* Did you mean"),
        ({"recipe": {"architecture": "RN50"}}, "'architecture' is not set in a recipe .* Set train.architectures"),
        ({"recipe": {"seed": 3}}, r"'seed' is not set in a recipe .* Set train\.seed"),
        ({"recipe": {"epoch": 3}}, "unknown field 'recipe.epoch'"),
        ({"recipe": {"extra_flags": ["--epochs", "3"]}}, "'--epochs 3' contradicts .* Set recipe.epochs instead"),
        ({"recipe": {"extra_flags": ["--epochen", "3"]}}, "unrecognized arguments: --epochen 3"),
        ({"equal_steps": True}, "Set train.exactly_once to false"),
        ({"overrides": [{"recipe": {"epochs": 3}}]}, "an override names an architecture"),
        ({"overrides": [{"architecture": "RN50", "recipe": {}}]}, "field 'overrides.0.recipe'"),
        (
            {"overrides": [{"architecture": "RN50", "recipe": {"epoch": 3}}]},
            r"unknown field 'epoch' \(train\.overrides\.0\.recipe\)\. Did you mean 'epochs'",
        ),
        (
            {"overrides": [{"architecture": "RN50", "recipe": {"epochs": 0}}]},
            r"field 'epochs': .* \(train\.overrides\.0\.recipe\)",
        ),
        ({"overrides": [{"architecture": "RN50", "recipe": {"seed": 1}}]}, r"'seed' is not set .*overrides\.0\.recipe"),
        (
            {"overrides": [{"architecture": "RN101", "recipe": {"epochs": 3}}]},
            r"no run has the architecture 'RN101' \(train\.overrides\.0\)",
        ),
        (
            {"overrides": [{"architecture": "RN50", "recipe": {"extra_flags": ["--lr", "3"]}}]},
            "'--lr 3.0' contradicts",
        ),
        ({"resources": {"pairs_per_second": {"RN": 3}}}, r"no run has the architecture 'RN' \(train\.resources\.pairs"),
        ({"resources": {"nodes": {"RN": 3}}}, r"no run has the architecture 'RN' \(train\.resources\.nodes"),
        ({"resources": {"nodes": 3, "placement": "SPREAD"}}, "8 processes of ViT-B-32 do not divide among 3 nodes"),
        ({"resources": {"nodes": 2}}, "STRICT_PACK keeps a run on one node"),
        ({"resources": {"gpus": 3}}, "resources.gpus follows from the recipe: it is 8"),
    ],
)
def test_what_cannot_be_is_a_config_error(fields: dict[str, Any], message: str) -> None:
    """It is told before anything is built, with where it stands."""
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_wandb_is_wanted_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said with how to install it."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    why = r"the package wandb is not installed \(train\.resources\.wandb\)\. Install it, pip install wandb"
    with pytest.raises(ConfigError, match=why):
        config(resources={"wandb": True})


def test_an_override_about_a_k_that_no_set_has_is_an_error() -> None:
    """It would be silently without effect."""
    made = config(overrides=[{"images_per_member": 2, "recipe": {"epochs": 3}}])
    with pytest.raises(ConfigError, match=r"no set has K = 2 .*overrides\.0.* There are 75, 5, 1\."):
        runs(made, SETS)
