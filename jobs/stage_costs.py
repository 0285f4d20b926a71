"""What each stage has to do and what it makes, from its config and its inputs' sizes: one function a stage.

The amounts are those of a run from scratch, and upper bounds where only the run itself finds out: how many links are
alive, how many people can take part. Rates turn them into time (`jobs/rates.yaml`).
"""

import math
from typing import Any

from idia_core.index_building import EXACT_BELOW
from idia_core.sizes import UNKNOWN, Size
from jobs.estimates import Estimate, Estimator, Inputs, Work, architecture_of, device_of, pieces, pieces_of_files
from jobs.model_costs import OF_MODELS
from pipelines.scan import ROWS_PER_SPLIT
from pipelines.shards import TARS_PER_SPLIT
from pipelines.shards_preview import SetSize, set_row

FACES_NOTE = "Faces are counted as one on each picture."
LINKS_NOTE = "Every link is counted as alive, and the servers and the network as fast enough: these are upper bounds."


def _scan(_config: Any, inputs: Inputs) -> Estimate:
    captions, names = inputs["captions"], inputs["identities"].rows
    work = Work("scan", captions.rows, pieces_of_files(captions, ROWS_PER_SPLIT))
    makes = {"names": Size(names), "occurrences": Size(names)}
    return Estimate((work,), makes, rows_in=captions.rows)


def _embed(config: Any, inputs: Inputs) -> Estimate:
    base, architecture, device = inputs["background"], architecture_of(config.model), device_of(config)
    work = [Work(f"clip_pictures.{architecture}", base.rows, base.files, device)]
    if config.texts:
        work.append(Work(f"clip_texts.{architecture}", base.rows, base.files, device))
    rows = Size(base.rows, files=base.files)
    makes = {"img_emb": rows, "text_emb": rows, "metadata": rows, "about": Size(1)}
    return Estimate(tuple(work), makes, rows_in=base.rows)


def _index(config: Any, inputs: Inputs) -> Estimate:
    rows = inputs["embeddings"].rows
    kind = "codes" if config.factory not in (None, "Flat") or rows >= config.exact_below else "flat"
    shards = pieces(rows, config.rows_per_shard)
    return Estimate((Work(f"index.{kind}", rows, shards),), {"shards": Size(rows, files=2 * shards)}, rows_in=rows)


def _recogniser(config: Any, inputs: Inputs) -> Estimate:
    faces, device = inputs["pictures"].rows, device_of(config)
    blocks = pieces(inputs["identities"].rows, config.people_per_split)
    prepared = [Work(f"faces.{config.detector.kind}", faces, blocks)] if config.detector else []
    if config.kind == "gallery":
        network = config.gallery.embedder
        work = [*prepared, Work(f"recogniser.faces.{network}", faces, blocks, device)]
    else:
        network = config.recipe.backbone
        work = [*prepared, Work(f"recogniser.train.{network}", faces * config.recipe.epochs, 1, device)]
    return Estimate(tuple(work), {"recogniser": Size(1, architectures=(network,))})


def _looking(config: Any, inputs: Inputs, pictures: float, splits: float) -> list[Work]:
    """Faces are found on pictures, and a recogniser says whose they are."""
    network = "".join(inputs["recogniser"].architectures) or "unknown"
    faces = Work(f"recogniser.faces.{network}", pictures, splits, device_of(config))
    return [Work(f"faces.{config.detector.kind}", pictures, splits), faces]


def searched(queries: float, index: Size, splits: float) -> Work:
    """Queries that are compared with the rows of an index: in an IVF index with few of them, yet for each row."""
    kind = "codes" if index.rows >= EXACT_BELOW else "flat"
    return Work(f"search.{kind}", queries * index.rows, splits)


def _faces(config: Any, inputs: Inputs) -> Estimate:
    base, queries = inputs["background"], inputs["pictures"].rows
    work, looked = list[Work](), base.rows
    blocks = pieces(inputs["identities"].rows, config.people_per_split)
    if config.mode == "retrieved":
        found = queries * config.neighbours
        looked = min(base.rows, found) if not math.isnan(base.rows) else found
        architecture = architecture_of(str(config.model))
        work = [Work(f"clip_pictures.{architecture}", queries, blocks, device_of(config))]
        work.append(searched(queries, inputs["index"], blocks))
    work += _looking(config, inputs, looked, base.files)
    makes = {"faces": Size(looked), "candidates": Size(queries * config.neighbours)}
    return Estimate(tuple(work), makes, notes=(FACES_NOTE,), rows_in=looked)


def _presence(config: Any, inputs: Inputs) -> Estimate:
    people = inputs["identities"].rows
    work = Work("presence", inputs["candidates"].rows, pieces(people, config.people_per_split))
    return Estimate((work,), {"presence": Size(people)}, rows_in=people)


def _select(config: Any, inputs: Inputs) -> Estimate:
    people, members, others = inputs["identities"].rows, config.members, config.non_members
    part, trained = people, people / 2
    if config.by == "occurrence":
        trained = UNKNOWN
    elif members and others:
        part, trained = float(members + others), float(members)
    return Estimate(
        (Work("select", people),), {"selection": Size(people, people=part, members=trained)}, rows_in=people
    )


def _retrieve(config: Any, inputs: Inputs) -> Estimate:
    people = inputs.tested()
    questions = people * len(config.texts) if config.by == "text" else inputs.pictures()
    blocks, work, waits = pieces(people, config.people_per_split), list[Work](), 0.0
    if config.embeds:
        kind = "clip_texts" if config.by == "text" else "clip_pictures"
        work.append(Work(f"{kind}.{architecture_of(str(config.model))}", questions, blocks, device_of(config)))
    if config.service:
        rate = config.resources.service.requests_per_second
        waits = questions / rate if rate else UNKNOWN
    else:
        groups = pieces(inputs["index"].files / 2, config.shards_per_split)  # a shard is an index and its metadata
        work.append(searched(questions, inputs["index"], groups))
        work.append(Work("retrieve.read", questions * config.neighbours, groups))
    each = Size(people * config.goal, people=people)
    return Estimate(
        tuple(work), {"candidates": each, "retrieved": Size(people), "retrievable": Size(people)}, (), waits
    )


def _members(inputs: Inputs, rows: Size) -> float:
    """The share of people whose pairs are made or fetched."""
    return inputs["selection"].members / rows.people if "selection" in inputs else 1.0


def _download(config: Any, inputs: Inputs) -> Estimate:
    urls = inputs["candidates"].rows * _members(inputs, inputs["candidates"])
    tars = pieces(urls, config.urls_per_split)
    makes = {"urls": Size(urls), "ledger": Size(urls), "tars": Size(urls, files=tars)}
    return Estimate((Work("download", urls, tars),), makes, notes=(LINKS_NOTE,), rows_in=inputs["candidates"].rows)


def _pairs(config: Any, inputs: Inputs) -> Estimate:
    fetched = inputs["ledger"].rows
    people = inputs["selection"].members if "selection" in inputs else inputs["identities"].rows
    blocks = pieces(people, config.people_per_split)
    work = [Work("pairs", fetched, blocks)]
    if "recogniser" in inputs:
        work += _looking(config, inputs, fetched, blocks)
    return Estimate(tuple(work), {"pairs": Size(fetched, people=people), "funnel": Size(people)})


def _own_pairs(config: Any, inputs: Inputs) -> Estimate:
    rows = inputs["pairs"].rows
    return Estimate((Work("pairs", rows, pieces(rows, config.rows_per_split)),), {"pairs": Size(rows)})


def _shards(config: Any, inputs: Inputs) -> Estimate:
    base, pairs, members = inputs["background"], inputs["pairs"], inputs["selection"].members
    if any(map(math.isnan, (base.rows, base.bytes, base.files, pairs.rows, members))):
        return Estimate((Work("shards_look", UNKNOWN), Work("shards_write", UNKNOWN)))
    each = base.bytes / base.rows  # also of a member's pair
    planned, sets = SetSize(int(base.rows), int(base.bytes), int(base.files)), list[tuple[str, int, int]]()
    written = tars = 0
    for k in sorted(set(config.images_per_member), reverse=True):
        own = int(min(k * members, pairs.rows))
        row = set_row(config, planned, SetSize(own, int(own * each)), k)
        sets.append((row["set"], k, row["pairs"]))
        written, tars = written + row["bytes"], tars + row["new_tars"]
    total = sum(pairs for _, _, pairs in sets)
    size = Size(total, written, tars, sets=tuple(sets))
    work = Work("shards_look", base.rows + pairs.rows, base.files), Work("shards_write", written, tars / TARS_PER_SPLIT)
    makes = {"tars": size, "ledger": Size(tars, sets=size.sets), "plan": Size(total, sets=size.sets)}
    makes |= {"base": base, "leakage": Size(1)}
    return Estimate(work, makes, rows_in=base.rows + pairs.rows)


def _verify(_config: Any, inputs: Inputs) -> Estimate:
    tars = inputs.beside("ledger", "tars")
    return Estimate(
        (Work("verify", tars.bytes, pieces(tars.files, TARS_PER_SPLIT)),),
        {"shards": Size(tars.files)},
        rows_in=tars.rows,
    )


def _people(config: Any, inputs: Inputs) -> Estimate:
    found = next(iter(inputs.all()), Size())
    work = Work("people", found.rows, pieces(found.people, config.people_per_split))
    return Estimate((work,), {"identities": Size(found.people), "pictures": Size(found.rows)}, rows_in=found.rows)


def _portraits(config: Any, inputs: Inputs) -> Estimate:
    urls = inputs["lists"].rows
    work = Work("download", urls, pieces(urls, config.urls_per_split))
    return Estimate((work,), {"people": Size(urls, people=inputs["lists"].people)}, notes=(LINKS_NOTE,))


def _world(config: Any, inputs: Inputs) -> Estimate:
    people = inputs["identities"].rows if "identities" in inputs else float(config.people)
    attack, training, labelled = (
        people * each for each in (config.attack_pictures, config.training_pictures, config.labelled_pictures)
    )
    web = people * config.web.pairs + config.web.others if config.web else 0.0
    base = config.background_pairs + config.planted_pictures * (config.strangers + people / 2)
    drawn = attack + training + labelled + web + base + config.validation_pairs
    makes = {"identities": Size(people), "pictures": Size(attack), "pairs": Size(training, people=people)}
    makes |= {"faces": Size(labelled), "captions": Size(config.caption_rows, files=1), "web": Size(web, files=1)}
    makes |= {"background": Size(base, files=1), "validation": Size(config.validation_pairs), "classes": Size(1)}
    work = Work("world.pictures", drawn, pieces(people, 3)), Work("world.captions", config.caption_rows)
    return Estimate(work, makes)


ESTIMATORS: dict[str, Estimator] = {
    **OF_MODELS,
    "portraits": _portraits,
    "people": _people,
    "panel": _people,
    "world": _world,
    "scan": _scan,
    "embed": _embed,
    "index": _index,
    "recogniser": _recogniser,
    "faces": _faces,
    "presence": _presence,
    "select": _select,
    "retrieve": _retrieve,
    "download": _download,
    "pairs": _pairs,
    "own_pairs": _own_pairs,
    "shards": _shards,
    "verify": _verify,
}
"""How the work of each kind of stage is estimated."""
