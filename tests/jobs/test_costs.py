"""What a study costs before it runs."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from idia_core.config import Study
from idia_core.rates import Prices, Rate, Rates, RatesFile, read_rates
from idia_core.sizes import Size, read_sizes
from jobs.costs import Cluster, StageCost, Terms, study_costs
from jobs.measured import Measured
from jobs.plan import State, plan_loosely
from jobs.stage_costs import ESTIMATORS
from pipelines.registry import STAGES
from pipelines.shards_preview import DECODED_A_SECOND, WRITTEN_A_SECOND
from tests.jobs.test_studies import study as shipped

PAPER = read_sizes(UPath(Path(__file__).parents[2] / "jobs/numbers/paper.yaml"))
RATES = {
    "scan": Rate(unit="captions", cpu=1e6),
    "clip_pictures.ViT-B-32": Rate(unit="pictures", cpu=10, gpu=1000),
    "index.flat": Rate(cpu=1e6),
    **{f"train.{name}": Rate(gpu=rate) for name, rate in {"ViT-B-32": 1100, "RN50": 600, "RN50x4": 230}.items()},
}


def terms(
    sizes: Mapping[str, Size],
    cpus: float = 16,
    gpus: float = 8,
    measured: tuple[Measured, ...] = (),
    own: Mapping[str, Rate] = MappingProxyType({}),
    **prices: float,
) -> Terms:
    """What is counted with."""
    given = RatesFile(rates=dict(own), prices=Prices.model_validate(prices))
    return Terms(Rates([("test", given)], RatesFile(rates=RATES)), measured, sizes, Cluster(cpus, gpus))


def costs(study: Study, wanted: Terms) -> dict[str, StageCost]:
    """By stage."""
    return {cost.plan.name: cost for cost in study_costs(study, plan_loosely(study), wanted)}


def test_every_stage_is_estimated() -> None:
    """One that is added must say what it has to do."""
    assert ESTIMATORS.keys() == STAGES.keys()


def test_the_laion_study_at_full_size(tmp_path: Path) -> None:
    """416 splits of a million captions, 413.9 seconds of a core; three models, 530 people of whom 30 pictures."""
    study = shipped("laion400m").model_copy(update={"out": str(tmp_path)})
    found = costs(study, terms(PAPER, cpu_hour=0.05))
    scan = found["scan"]
    assert scan.plan.state is State.LACKS
    assert (scan.splits, scan.reads) == (416, 54e9)
    assert scan.taken.cpu_hours == pytest.approx(413_871_335 / 1e6 / 3600)
    assert scan.taken.hours == pytest.approx(413.871335 / 416 * 26 / 3600)  # 16 at once are 26 times
    assert scan.money == pytest.approx(scan.taken.cpu_hours * 0.05)
    attack = found["attack"]
    assert attack.plan.state is State.WAITS
    assert attack.splits == 67 * 3  # blocks of 8 people, for each model
    assert math.isnan(attack.taken.cpu_hours)  # there is no rate for two of the models
    assert "clip_pictures.ViT-L-14 on a CPU" in attack.missing
    assert scan.absent == ("laion400m-meta", "people/identities.parquet")


def test_the_cc3m_study_at_full_size(tmp_path: Path) -> None:
    """Sizes flow from CC3M and the people through sets and trainings to votes."""
    study = shipped("cc3m").model_copy(update={"out": str(tmp_path)})
    found = costs(study, terms(PAPER, gpus=8))
    assert (found["embed"].splits, found["embed"].reads) == (331, 76e9)
    assert found["embed"].taken.gpu_hours == pytest.approx(2_800_000 / 1000 / 3600)
    assert found["embed"].taken.cpu_hours == pytest.approx(8 * found["embed"].taken.gpu_hours)  # reserved beside
    assert found["index"].taken.cpu_hours == pytest.approx(2.8 / 3600)
    assert found["download"].splits == 2  # 100 members of 150 candidates each, 10,000 URLs a split
    assert found["train"].splits == 18
    pairs = 6 * (2_800_000 // 16_384 * 16_384)  # whole batches of all loaders, and what members add fills no more
    hours = 50 / 3600 * sum(pairs / rate for rate in (1100, 600, 230))
    assert found["train"].taken.gpu_hours == pytest.approx(hours, rel=0.01)
    assert found["train"].taken.hours == pytest.approx(found["train"].taken.gpu_hours / 8, rel=0.01)
    assert found["evaluate"].splits == 18


def test_trainings_that_no_node_can_hold_have_no_end(tmp_path: Path) -> None:
    """The hours of GPUs are known all the same."""
    study = shipped("cc3m").model_copy(update={"out": str(tmp_path)})
    train = costs(study, terms(PAPER, gpus=4))["train"]
    assert train.taken.gpu_hours > 1000
    assert math.isnan(train.taken.hours)
    assert any("8 GPUs" in note for note in train.notes)


def test_an_input_of_unknown_size_makes_unknown_costs(tmp_path: Path) -> None:
    """And the note says how its size is given."""
    study = shipped("laion400m").model_copy(update={"out": str(tmp_path)})
    scan = costs(study, terms({}))["scan"]
    assert math.isnan(scan.taken.cpu_hours)
    assert any("--size 'laion400m-meta=... rows'" in note for note in scan.notes)


@pytest.fixture
def small(tmp_path: Path) -> Study:
    """A scan of captions that are there: two files of 3 and 1.5 million rows in groups of half a million."""
    (tmp_path / "captions").mkdir()
    for name, rows in (("a", 3_000_000), ("b", 1_500_000)):
        table = pa.table({"TEXT": pa.array(["x"]).take(pa.array([0] * rows, pa.int32())).dictionary_encode()})
        pq.write_table(table, tmp_path / f"captions/{name}.parquet", row_group_size=500_000)
    pq.write_table(pa.table({"name": ["Ann Ash", "Bo Lee"]}), tmp_path / "people.parquet")
    inputs = {"captions": str(tmp_path / "captions"), "identities": str(tmp_path / "people.parquet")}
    return Study(name="small", out=str(tmp_path / "out"), stages={"scan": {"inputs": inputs}})


def test_what_is_there_is_counted_whatever_is_declared(small: Study) -> None:
    """Rows from the ends of Parquet files, bytes from the listing; a size that is declared fills nothing in."""
    source = small.stages["scan"]["inputs"]["captions"]
    scan = costs(small, terms({source: Size(rows=1e9)}))["scan"]
    assert scan.taken.cpu_hours == pytest.approx(4.5 / 3600)
    assert scan.splits == 6  # about: files are taken for equal
    assert scan.reads == sum(file.stat().st_size for file in Path(source).parent.rglob("*.parquet"))
    assert scan.notes == ()


def test_a_worker_that_the_cluster_has_no_room_for(small: Study) -> None:
    """Its hours are known, when they would end is not."""
    wide = small.model_copy(update={"stages": {"scan": small.stages["scan"] | {"resources": {"cpus": 32}}}})
    scan = costs(wide, terms({}))["scan"]
    assert scan.taken.cpu_hours == pytest.approx(4.5 / 3600)
    assert math.isnan(scan.taken.hours)
    assert scan.notes == ("a worker takes 32 CPUs and 0 GPUs: the cluster has no room",)


def test_the_rate_of_an_earlier_run_counts_before_what_is_shipped(small: Study) -> None:
    """4.5 million rows at 10 microseconds each; that of a run with other settings does not."""
    alike = Measured("scan", {"urls": True}, 1e-5, cpus=1, gpus=0, where="the seal in out/scan")
    scan = costs(small, terms({}, measured=(alike,)))["scan"]
    assert scan.taken.cpu_hours == pytest.approx(45 / 3600)
    assert [rate.source for rate in scan.rates] == ["the seal in out/scan"]
    other = Measured("scan", {"urls": False}, 1e-5, cpus=1, gpus=0, where="")
    assert costs(small, terms({}, measured=(other,)))["scan"].taken.cpu_hours == pytest.approx(4.5 / 3600)


def test_a_rate_of_the_users_counts_before_that_of_an_earlier_run(small: Study) -> None:
    """Who gives one knows better."""
    alike = Measured("scan", {"urls": True}, 1e-5, cpus=1, gpus=0, where="the seal in out/scan")
    scan = costs(small, terms({}, measured=(alike,), own={"scan": Rate(cpu=2e6)}))["scan"]
    assert scan.taken.cpu_hours == pytest.approx(2.25 / 3600)
    assert [rate.source for rate in scan.rates] == ["test"]


def test_shipped_rates_of_shards_are_those_of_its_own_preview() -> None:
    """`--dry-run` and `plan` tell the same."""
    rates = load_rates()
    assert rates.rates["shards_look"].cpu == DECODED_A_SECOND
    assert rates.rates["shards_write"].cpu == WRITTEN_A_SECOND


def test_every_shipped_rate_says_on_what_it_was_measured() -> None:
    """None is invented."""
    assert all(rate.measured and rate.unit != Rate().unit for rate in load_rates().rates.values())


def load_rates() -> RatesFile:
    """The shipped ones."""
    return read_rates(UPath(Path(__file__).parents[2] / "jobs/numbers/rates.yaml"))
