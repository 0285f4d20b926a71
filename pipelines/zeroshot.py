"""`zeroshot`: how many pictures every model sorts into their class by the classes' names (paper, Table 2)."""

from collections.abc import Mapping

import polars as pl
from pydantic import field_validator

from idia_core.errors import ConfigError, InvalidInputError
from idia_core.labelled_pictures import PATTERNS, labelled_pictures
from idia_core.zeroshot import (
    SLOT,
    ZEROSHOT,
    build_classifier,
    classification_hits,
    imagenet_names,
    read_class_names,
)
from pipelines.stage import Input, Phase, Split, SplitWriter, Stage, StageContext
from pipelines.tested_models import TestedModelsConfig, each_model, load_model, row_of, telling


class ZeroshotConfig(TestedModelsConfig):
    """Settings of `zeroshot`; the defaults are those for ImageNet."""

    class_names: tuple[str, ...] | str | None = None
    """The names of the classes 0, 1, ..., or a text file with one a line; open_clip's for ImageNet if not given."""
    templates: tuple[str, ...] | None = None
    """The prompts, `{}` standing for the class's name; OpenAI's 80 for ImageNet if not given."""

    @field_validator("class_names")
    @classmethod
    def _named(cls, names: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if names is not None and not all(name.strip() for name in names or [""]):
            raise ValueError("class_names must name a class or more, and none may be blank")
        return names

    @field_validator("templates")
    @classmethod
    def _with_slot(cls, templates: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if templates is not None and not all(SLOT in template for template in templates or [""]):
            raise ValueError(f"there must be a template or more, each with {SLOT}")
        return templates


def _named_files(config: ZeroshotConfig) -> Mapping[str, str]:
    return {"class_names": config.class_names} if isinstance(config.class_names, str) else {}


def _class_names(context: StageContext) -> list[str]:
    """The names as the config, its file or the input `classes` has them."""
    config: ZeroshotConfig = context.config
    if "classes" not in context.inputs:
        if isinstance(config.class_names, str):
            return read_class_names(context.inputs["class_names"].files[0])
        return imagenet_names() if config.class_names is None else list(config.class_names)
    if config.class_names is not None:
        raise ConfigError("the classes are named twice", "stage zeroshot, class_names and inputs.classes", "Keep one.")
    classes = pl.DataFrame(context.inputs["classes"].read("label", "name")).sort("label")
    if classes["label"].to_list() != list(range(classes.height)):
        what = "the labels are not 0, 1, 2 and so on"
        raise InvalidInputError(what, "stage zeroshot, input classes", "Give every class its own.")
    return classes["name"].to_list()


class _Classifier:
    """Builds a model's classifier, and shows the model every picture."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._names = context, _class_names(context)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        context, names = self._context, self._names
        pictures = labelled_pictures(context.inputs["pictures"].files, len(names))
        model, stream = load_model(context, split)
        report = telling(split, out)
        classifier_CD = build_classifier(model, names, context.config.templates, report)
        hits = classification_hits(stream, pictures, classifier_CD, report)
        out.table("zeroshot", row_of(ZEROSHOT, split, {f"top{k}": expected for k, expected in hits.items()}, stream))
        out.count(**stream.counts)


STAGE = Stage(
    name="zeroshot",
    version=1,
    summary="classify pictures by the names of their classes",
    config=ZeroshotConfig,
    inputs={
        "models": Input("models (model, architecture, reference, sha256)"),
        "pictures": Input("folders of classes, tars of jpg and cls, or Parquet (image, label)", patterns=PATTERNS),
        "classes": Input("the classes' names (label, name), instead of class_names", optional=True),
    },
    phases=(Phase("classify", each_model, _Classifier),),
    tables=("zeroshot",),
    named_files=_named_files,
)
