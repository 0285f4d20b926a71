"""Which flags of open_clip_train a recipe may pass through, and what is said of the others."""

from pathlib import Path

import pytest

from idia_core.errors import ConfigError
from idia_core.extra_flags import OUR_FIELDS, REFUSED, check_extra_flags
from idia_core.training import TrainingRecipe, open_clip_flags


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--grad-clip-norm", "1"),
        ("--grad-checkpointing", "--use-bn-sync"),
        ("--aug-cfg", "scale=(0.9,1.0)", "color_jitter=None"),
        ("--beta2", "0.9"),
        ("--log-every-n-steps", "7"),
        ("--wandb-notes=a b",),
        ("--epochs", "50"),
    ],
)
def test_what_says_nothing_else_than_the_recipe_passes(flags: tuple[str, ...]) -> None:
    """All other settings of open_clip's do, and those that repeat ours; open_clip is given them as they are, last."""
    recipe = TrainingRecipe(extra_flags=flags)
    check_extra_flags(recipe)
    given = open_clip_flags(recipe, "0.tar", 1, "K001", Path("logs"))
    assert given[len(given) - len(flags) :] == list(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epochs", "3"), "'--epochs 3' contradicts what the run is started with, 50 .* Set recipe.epochs instead"),
        (("--lr=3",), "'--lr 3.0' contradicts what the run is started with, 0.001 .* Set recipe.learning_rate instead"),
        (("--warm", "3"), "'--warmup 3' contradicts what the run is started with, 10000 .* Set recipe.warmup_steps"),
        (("--report-to", "wandb"), "'--report-to wandb' contradicts .* tensorboard .* Set train.resources.wandb"),
        (("--accum-freq", "2"), "'--accum-freq 2' contradicts .*, 1 .* Set recipe.batch_size_per_process instead"),
        (("--model", "RN50"), "'--model RN50' contradicts .*, ViT-B-32 .* Set train.architectures instead"),
    ],
)
def test_a_flag_that_contradicts_the_recipe_names_the_field_to_set(flags: tuple[str, ...], message: str) -> None:
    """With both values; an abbreviation and `--flag=value` are told like the flag."""
    with pytest.raises(ConfigError, match=message) as raised:
        check_extra_flags(TrainingRecipe(extra_flags=flags))
    assert raised.value.where == "recipe.extra_flags"


def test_beta2_contradicts_only_a_recipe_that_has_one() -> None:
    """Otherwise it is open_clip's own, which a flag may change."""
    with pytest.raises(ConfigError, match=r"'--beta2 0\.9' contradicts .*, 0\.98 .* Set recipe\.adam_beta2"):
        check_extra_flags(TrainingRecipe(adam_beta2=0.98, extra_flags=("--beta2", "0.9")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epoch-count", "3"), "open_clip_train refuses its flags: unrecognized arguments: --epoch-count 3"),
        (("--epochs",), "argument --epochs: expected one argument"),
        (("--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
        (("--epoch", "3"), "ambiguous option: --epoch could match --epochs, --epochs-cooldown"),
        (("stray",), "unrecognized arguments: stray"),
        (("--help",), "--help trains nothing"),
        (("--aug-cfg", "scale"), "not enough values to unpack .* Write --aug-cfg KEY=VALUE"),
        (("--work", "4"), "'--work' is only the beginning of a flag .* Write it in full"),
        (("--threads", "4"), "unrecognized arguments: --threads 4"),
    ],
)
def test_what_open_clip_cannot_read_is_said_in_its_words(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Argparse's own message is in the error and nowhere else."""
    with pytest.raises(ConfigError, match=message):
        check_extra_flags(TrainingRecipe(extra_flags=flags))
    assert capsys.readouterr() == ("", "")


def test_every_flag_that_would_break_a_run_is_refused_with_its_reason() -> None:
    """Each is one of open_clip's, tried as a switch, with a word and with a number."""
    for name, reason in REFUSED.items():
        flag = f"--{name.replace('_', '-')}"
        refusals = list[str]()
        for value in ((), ("1",), ("x",)):
            with pytest.raises(ConfigError) as raised:
                check_extra_flags(TrainingRecipe(extra_flags=(flag, *value)))
            refusals.append(raised.value.what)
        assert any(refusal.startswith(f"'{flag}") and refusal.endswith(reason) for refusal in refusals), refusals


def test_what_we_set_is_named_or_refused_when_it_is_changed() -> None:
    """No flag of ours is without a field, but those that are no setting: switches, and how often a line is written."""
    recipe = TrainingRecipe(adam_beta2=0.9)
    words = open_clip_flags(recipe, "d", 9, "n", Path("l"), accumulate=2, resume=Path("r"))
    ours = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    assert ours - OUR_FIELDS.keys() - REFUSED.keys() == {"local_loss", "gather_with_grad", "log_every_n_steps"}
    fields = {field.removeprefix("recipe.") for field in OUR_FIELDS.values() if field.startswith("recipe.")}
    assert fields <= TrainingRecipe.model_fields.keys()
