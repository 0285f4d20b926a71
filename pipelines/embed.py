"""`embed`: CLIP embeddings of base pairs, in the layout of clip-retrieval (paper, Appendix C).

Axes: N pairs, D embedding dimensions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from idia_core.base_inputs import BasePart, Kind, base_files, read_split
from idia_core.base_samples import BaseSample
from idia_core.base_urls import urls_of
from idia_core.embeddings import ABOUT, FAILURES, METADATA, URL, open_embeddings, write_embeddings
from idia_core.errors import InvalidInputError
from idia_core.manifest import read_receipts
from idia_core.models import ClipModel, weights_sha256
from idia_core.picture_stream import PictureStream, Source
from idia_core.sample_status import SampleStatus
from pipelines.base_reading import BACKGROUND, BaseConfig, splits_of
from pipelines.failures import check_failures, note_damage
from pipelines.given_model import WEIGHTS, given_model, model_files
from pipelines.stage import Phase, Split, SplitWriter, Stage, StageContext, once
from pipelines.tested_models import TestedModelsConfig


class EmbedConfig(BaseConfig, TestedModelsConfig):
    """Settings of `embed`."""

    model: str
    """The CLIP model, as `idia audit --model` has it; its architecture where the input `weights` has the rest."""
    texts: bool = False
    """Embed the captions too."""


class _Pair(NamedTuple):
    """What is kept of a pair while its picture is embedded."""

    row: int
    key: str
    caption: str
    detail: str | None


class _Embedder:
    """Embeds the pairs of a split; a row of the metadata for each that it could, of the failures for each other."""

    def __init__(self, context: StageContext) -> None:
        config: EmbedConfig = context.config
        self._config, self._threads = config, max(1, int(config.resources.cpus))
        self._model = ClipModel(given_model(context), config.device, config.batch_size)

    def __call__(self, split: Split, out: SplitWriter) -> None:
        part = read_split(split)
        note_damage(part, split, out, self._config.tolerate_failed_inputs)
        pairs, images_ND = self._embed_pictures(part, split, out)
        if not pairs:
            return  # embedding_reader passes over npy files without rows, but not over their metadata
        _write(out, "img_emb", images_ND)
        if self._config.texts:
            out.report(0.5, f"captions of {len(pairs):,} pictures")
            _write(out, "text_emb", self._model.encode_texts(pair.caption for pair in pairs))
        with out.open(f"metadata/metadata_{out.part:05d}.parquet", rows=len(pairs)) as file:
            pq.write_table(_metadata(pairs, split, out.part), file, compression="zstd", row_group_size=65_536)

    def _embed_pictures(
        self, part: BasePart, split: Split, out: SplitWriter
    ) -> tuple[list[_Pair], npt.NDArray[np.float16]]:
        """The pairs whose pictures could be embedded, and these embeddings; writes what kept the others out."""
        samples, total = _samples(part, split)
        pairs, failures = list[_Pair](), list[dict[str, Any]]()

        def note_failure(pair: _Pair, status: str) -> None:
            failures.append({"source": split["url"], "key": pair.key, "status": status, "detail": pair.detail})

        stream = PictureStream(self._model, self._threads)
        found_ND = [self._model.encode_images([]).astype(np.float16)]
        share = 0.5 if self._config.texts else 1.0
        for some, embeddings_ND in stream.embed(map(_shown, samples), note_failure):
            pairs += some
            found_ND.append(embeddings_ND.astype(np.float16))
            out.report(share * min(1.0, (some[-1].row + 1) / total), stream.words)
        out.table("failures", pa.Table.from_pylist(failures, FAILURES))
        out.count(**stream.counts)
        return pairs, np.concatenate(found_ND)


def _samples(part: BasePart, split: Split) -> tuple[Iterator[tuple[int, BaseSample]], int]:
    """The pairs with their places in the split, and how many there are."""
    if split["kind"] == Kind.TARS:
        samples = list(part.samples)  # their pictures stay in the tar
        return enumerate(samples), len(samples)
    rows = split["stop"] - split["start"] if split["kind"] == Kind.TABLES else split["rows"]
    return enumerate(part.samples), rows


def _shown(numbered: tuple[int, BaseSample]) -> tuple[_Pair, Source]:
    """A pair, with its picture or the reason why that is not embedded."""
    row, sample = numbered
    if sample.status is not SampleStatus.OK or sample.picture is None or sample.caption is None:
        return _Pair(row, sample.key, "", sample.detail), str(sample.status)
    return _Pair(row, sample.key, bytes(sample.caption).decode(), sample.detail), sample.picture


def _metadata(pairs: Sequence[_Pair], split: Split, part: int) -> pa.Table:
    columns = {
        "image_path": [pair.key for pair in pairs],
        "caption": [pair.caption for pair in pairs],
        "source": [split["url"]] * len(pairs),
        "part": [part] * len(pairs),
        "row": [pair.row for pair in pairs],
    }
    table, urls = pa.table(columns, METADATA), urls_of(split)
    return table if urls is None else table.append_column(URL, [[urls.get(pair.key) for pair in pairs]])


def _write(out: SplitWriter, table: str, embeddings_ND: npt.NDArray[np.floating[Any]]) -> None:
    with out.open(f"{table}/{table}_{out.part:05d}.npy", rows=len(embeddings_ND)) as file:
        write_embeddings(file, embeddings_ND)


class _Summer:
    """Sees that not too many files failed, and writes which model made the embeddings."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def __call__(self, split: Split, out: SplitWriter) -> None:
        context, config = self._context, self._context.config
        check_failures(context, base_files(context.inputs["background"].files))
        parts = [file for receipt in read_receipts(context.folder) for file in receipt.files if file.table == "img_emb"]
        if not sum(part.rows or 0 for part in parts):
            what, where = "there is no pair that could be embedded", context.inputs["background"].source
            raise InvalidInputError(what, where, "The table `failures` says what became of each.")
        reference = given_model(context)
        about = {
            "model": str(reference),
            "sha256": weights_sha256(reference),
            "device": config.device,
            "dimensions": open_embeddings(context.folder / parts[0].path).dimensions,
        }
        out.table("about", pa.Table.from_pylist([about], ABOUT))


def _named_files(config: EmbedConfig) -> Mapping[str, str]:
    return model_files(config.inputs, config.model)


STAGE = Stage(
    name="embed",
    version=2,
    summary="embed base pairs with a CLIP model",
    config=EmbedConfig,
    inputs={"background": BACKGROUND, "weights": WEIGHTS},
    phases=(Phase("embed", splits_of, _Embedder), Phase("sum", once, _Summer)),
    tables=("img_emb", "text_emb", "metadata", "failures", "about"),
    named_files=_named_files,
)
