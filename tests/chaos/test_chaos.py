"""Whatever befalls the nodes, workers and drivers of a study of all stages, it ends as if nothing had happened."""

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from idia_core.config import load_study
from idia_core.storage import as_path
from pipelines.registry import STAGES
from tests.chaos.faults import DECK, Fault, Scene, kill_head
from tests.chaos.given import STUDY, settings, web, write_given, write_lists
from tests.chaos.nodes import Nodes, nodes
from tests.kills import IDIA, ROOT, ended
from tests.processes import still_running
from tests.soak import WHOLE, soak_count

FAULTS = 100
SEED = int(os.environ.get("IDIA_CHAOS_SEED", "9"))
ROUND = 34
"""Faults that befall one study before the next one begins."""
ROUNDS = 12
ENDS = 60
"""So often a study may end before its end."""
SCRATCH_MIB = 256
KILLED = (-9, -15, 143)
"""How a driver ends that is killed, or asked to end."""
RAYS_OWN_END = 1
"""How Ray ends a driver, without a word, whose own raylet is killed with the head while it is amid a call."""
TOLD = {
    *(f"train/{table}" for table in ("runs", "logs", "tensorboard", "curves")),
    "report",
}
"""What tells of the attempts that it took."""
STAGE_NAMES = list(load_study(as_path(str(STUDY))).stages)


def test_the_study_has_every_stage() -> None:
    """No stage is left out of the chaos."""
    study = load_study(as_path(str(STUDY)))
    assert {study.kind(name) for name in study.stages} == set(STAGES)


class Runs:
    """Runs of the study into one folder, each after the other, and what befalls them."""

    def __init__(self, cluster: Nodes, out: Path, words: list[str], rng: random.Random) -> None:
        self.nodes, self.out, self.rng = cluster, out, rng
        self._words = ["run", str(STUDY), "--set", f"out={out}", *words]
        self._log = out.parent.with_suffix(".log")  # not on the disk that is filled
        self.hits: Counter[tuple[str, str]] = Counter()
        self.ends = 0

    def to_the_end(self, plan: dict[str, list[Fault]]) -> None:
        """Run until every stage is done, with the faults of the plan on the way."""
        while True:
            said = self._log.stat().st_size if self._log.exists() else 0
            with (
                self._log.open("ab") as log,
                subprocess.Popen(
                    [*IDIA, *self._words, "--address", self.nodes.address], cwd=ROOT, stdout=log, stderr=log
                ) as driver,
            ):
                befell = self._disturb(driver, plan)
                driver.wait()
            if driver.returncode == 0:
                return
            self.ends += 1
            assert self.ends < ENDS
            self._check_end(driver.returncode, befell, self._log.read_bytes()[said:].decode())

    def _check_end(self, code: int, befell: set[Fault], said: str) -> None:
        """A run that was not killed ends with a line that says why."""
        if code not in KILLED:
            last = said.strip().splitlines()[-1] if said.strip() else ""
            headless = kill_head in befell and code == RAYS_OWN_END
            assert "Error: " in last or headless, f"exit code {code}: {said[-3000:]}"
            assert "Traceback" not in said, said[-3000:]

    def _disturb(self, driver: "subprocess.Popen[bytes]", plan: dict[str, list[Fault]]) -> set[Fault]:
        """Let faults befall the run until it ends; those that hit something."""
        befell = set[Fault]()
        while driver.poll() is None:
            stage = self._stage()
            if stage and (due := _due(plan, stage)):
                time.sleep(self.rng.choice((0, 0, 0.2, 1)))
                fault = due[0]
                if fault(Scene(self.nodes, driver, self.out, stage, self.rng)):
                    self.hits[stage, fault.__name__] += 1
                    befell.add(fault)
                    due.pop(0)
            time.sleep(0.02)
        return befell

    def _stage(self) -> str | None:
        """The stage that the run is at."""
        for name in STAGE_NAMES:
            folder = self.out / name
            if (folder / "_receipts/fingerprint").exists() and not (folder / "manifest.json").exists():
                return name
        return None


def _due(plan: dict[str, list[Fault]], stage: str) -> list[Fault] | None:
    """The faults of a stage, or those of an earlier one that was over before they hit anything."""
    names = [stage, *STAGE_NAMES[: STAGE_NAMES.index(stage)]]
    return next((plan[name] for name in names if plan.get(name)), None)


def outputs(out: Path) -> dict[str, str]:
    """The hash of every file that does not tell how it came about; and nothing temporary is there."""
    found = ended(out, STAGE_NAMES)
    return {path: digest for path, digest in found.items() if not any(path.startswith(f"{told}/") for told in TOLD)}


def _to_come(wanted: int, befallen: Counter[str]) -> int:
    """How many faults there must still be: all that are wanted and, where they suffice, one at every stage."""
    untouched = [name for name in STAGE_NAMES if not befallen[name]] if wanted >= len(STAGE_NAMES) else []
    return max(wanted - befallen.total(), len(untouched))


def planned(faults: int, hits: Counter[str], deck: Iterator[Fault], rng: random.Random) -> dict[str, list[Fault]]:
    """Faults for the stages that had the fewest."""
    order = sorted(STAGE_NAMES, key=lambda name: (hits[name], rng.random()))
    plan: dict[str, list[Fault]] = {}
    for place in range(faults):
        plan.setdefault(order[place % len(order)], []).append(next(deck))
    return plan


def shuffled(rng: random.Random) -> Iterator[Fault]:
    """The deck over and over."""
    while True:
        yield from rng.sample(DECK, len(DECK))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own that can be filled, if this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SCRATCH_MIB}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder)


def of(out: Path) -> list[psutil.Process]:
    """All processes that name a folder."""
    everything = psutil.process_iter(["cmdline"])
    return [process for process in everything if str(out) in " ".join(process.info["cmdline"] or [])]


@pytest.mark.slow
@pytest.mark.soak
@WHOLE
def test_whatever_befalls_a_study_its_outputs_are_those_of_an_undisturbed_one(tmp_path: Path) -> None:
    """A hundred faults at all stages, on three nodes: the same bytes, no process and nothing temporary left."""
    wanted, rng, hits = soak_count(FAULTS), random.Random(SEED), Counter[tuple[str, str]]()
    given, site, run, deck = tmp_path / "given", tmp_path / "site", tmp_path / "run", shuffled(rng)
    out, began = run / "out", time.monotonic()  # one place for all of them, as tables tell where rows came from
    run.mkdir()
    site.symlink_to(out / "world/site")
    write_given(given)
    with nodes() as cluster, web(given, site) as place:
        write_lists(given, f"http://{place}")
        words = settings(given, place)
        Runs(cluster, out, words, rng).to_the_end({})
        expected, ends = outputs(out), 0
        site.unlink()
        shutil.copytree(out / "world/site", site)
        shutil.rmtree(run)
        print(f"undisturbed: {len(expected)} files, {time.monotonic() - began:.0f} s")  # noqa: T201 - shown by pytest -s
        for number in range(ROUNDS):
            befallen = Counter(stage for stage, _ in hits.elements())
            if not (missing := _to_come(wanted, befallen)):
                break
            with small_disk(run):
                runs = Runs(cluster, out, words, rng)
                runs.to_the_end(planned(min(missing, ROUND), befallen, deck, rng))
                assert not still_running(of(runs.out), 20)
                assert outputs(runs.out) == expected
                hits += runs.hits
                ends += runs.ends
            print(f"round {number}: {hits.total()} faults, {time.monotonic() - began:.0f} s")  # noqa: T201
    print(_figures(hits, ends, time.monotonic() - began))  # noqa: T201
    assert not _to_come(wanted, Counter(stage for stage, _ in hits.elements()))


def _figures(hits: Counter[tuple[str, str]], ends: int, seconds: float) -> str:
    kinds, stages = Counter(kind for _, kind in hits.elements()), Counter(stage for stage, _ in hits.elements())
    return (
        f"seed {SEED}: {hits.total()} faults in {seconds / 60:.1f} min, {ends} runs ended early\n"
        f"by kind: {dict(kinds.most_common())}\nby stage: {dict(stages.most_common())}"
    )
