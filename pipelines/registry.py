"""Every stage that a study may name."""

from pipelines import attack, evaluate, people, report, scan, select, shards, train, world
from pipelines.stage import Stage

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE for module in (people, world, scan, select, shards, train, attack, evaluate, report)
}
