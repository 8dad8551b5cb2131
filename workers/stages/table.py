"""The table of stages: every kind there is, in the order in which jobs pass through them."""

from workers.stage_kind import StageKind
from workers.stages.evaluate import EVALUATE
from workers.stages.predict import PREDICT
from workers.stages.prepare import PREPARE
from workers.stages.pretrain import PRETRAIN
from workers.stages.retrain import RETRAIN
from workers.stages.search import SEARCH

STAGES: dict[str, StageKind] = {
    kind.name: kind for kind in (PREPARE, PRETRAIN, SEARCH, RETRAIN, PREDICT, EVALUATE)
}
"""Name → kind."""
