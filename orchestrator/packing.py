"""Which stages share a GPU: their peak memory is measured once, kept, and reserved from then on.

A stage whose peak nobody has measured gets a whole GPU. Afterwards every stage of its sort
reserves that peak and a margin, may not take more (`workers.memory.gpu_limited`), and has the
whole GPU after all if that was too little. Searches that are timed are never packed.
"""

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from files.encoding import to_json
from files.reading import value_or_none, warn_damaged
from orchestrator.resources import ResourceSettings, StageResources
from workers.job import content_hash, plain
from workers.memory import runs_apart
from workers.places import Place
from workers.stage_store import StageRecord
from workers.stages.table import STAGES
from workers.task import StageTask

MARGIN = 1.15
"""What is reserved over what was measured; our choice."""
_NOTES = "peaks"
_NOTE = re.compile(r"\w+\.\w+\.json")
_STEPS_OF_A_GPU = 100
_STEPS_OF_A_GIB = 4
_NOT_IN_MEMORY = ("epochs", "steps_per_epoch", "checkpoint_every_epochs", "alpha_warmup_epochs")
"""Settings of a stage's section that change its length only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What stages of one sort took at most on one model of device.

    Attributes:
        device: Its model.
        host_mib: Of the machine's memory.
        gpu_mib: Of the GPU's; None on a CPU.
        total_gpu_mib: All that the GPU has; None on a CPU.
    """

    device: str
    host_mib: float
    gpu_mib: float | None = None
    total_gpu_mib: float | None = None

    @property
    def share(self) -> float | None:
        """What to reserve of a GPU, in hundredths; 1 if two would not fit; None on a CPU."""
        if self.gpu_mib is None or not self.total_gpu_mib:
            return None
        share = MARGIN * self.gpu_mib / self.total_gpu_mib
        share = math.ceil(_STEPS_OF_A_GPU * share) / _STEPS_OF_A_GPU
        return share if share <= 0.5 else 1.0

    @property
    def memory_gib(self) -> float:
        """What to reserve of the machine's memory, in quarters of a GiB."""
        return math.ceil(_STEPS_OF_A_GIB * MARGIN * self.host_mib / 1024) / _STEPS_OF_A_GIB


def sort_of(task: StageTask) -> str:
    """Return a hash of what a stage's memory depends on: network, data, batch; no seed."""
    settings, kind = task.job.settings, STAGES[task.kind]
    identity: dict[str, Any] = {"kind": task.kind, "data": task.source.fingerprint}
    if kind.needs_backbone():
        section = plain(settings.section(kind.section)) or {}
        identity |= {
            "prepare": plain(settings.prepare),
            "backbone": task.job.backbone_identity(),
            "backbone_type": task.job.backbone_type,
            "section": {
                name: value for name, value in section.items() if name not in _NOT_IN_MEMORY
            },
            "augmentation": settings.augmentation.enabled,
        }
    if kind.varies_with == "pruner":
        identity["pruner_type"] = task.job.pruner_type
    if kind.varies_with == "pruner" or task.genotype:
        identity["cell"] = plain(settings.cell)
    return content_hash(identity)


def _peak(content: bytes, name: str) -> Peak | None:
    """The peak in a note; None if that is damaged."""
    raw = value_or_none(content, dict, name=name)
    try:
        return None if raw is None else Peak(**raw)
    except TypeError as error:
        warn_damaged(name, f"must say what a stage took, got {error}")
        return None


class Packing:
    """What is known of the memory of stages; notes lie beside the stages, one per sort and device.

    Args:
        place: The store's.
        resources: What the sweep says.
    """

    def __init__(self, place: Place, resources: ResourceSettings) -> None:
        self._place, self._resources = place, resources
        self._peaks: dict[str, dict[str, Peak]] = {}
        names = [name for name in place.names(_NOTES) if _NOTE.fullmatch(name)]
        contents = place.read_all(f"{_NOTES}/{name}" for name in names)
        for name, content in contents.items():
            peak = _peak(content, f"{place.root}/{name}")
            if peak is not None:
                self._keep(name.rpartition("/")[2].partition(".")[0], peak)

    def learn(self, task: StageTask, record: StageRecord) -> bool:
        """Take in what a finished stage took; whether that was news.

        Raises:
            OSError: If it cannot be kept.
        """
        seen = record.provenance
        if runs_apart(task) or seen.get("n_micro_batches", 1) > 1 or "peak_host_mib" not in seen:
            return False
        peak = Peak(
            device=seen["device"],
            host_mib=seen["peak_host_mib"],
            gpu_mib=seen.get("peak_gpu_mib"),
            total_gpu_mib=seen.get("gpu_mib"),
        )
        sort = sort_of(task)
        if not self._keep(sort, peak):
            return False
        kept = self._peaks[sort][peak.device]
        name = f"{_NOTES}/{sort}.{content_hash([kept.device, kept.share, kept.memory_gib])}.json"
        content = to_json(asdict(kept))
        if not self._place.create(name, content):
            self._place.write(name, content)  # over a damaged one, or over the same
        return True

    def fill(self, task: StageTask, needs: StageResources) -> StageResources:
        """Return what a stage reserves: what the sweep leaves open follows from what was measured.

        Args:
            task: The stage.
            needs: What the sweep says, GPUs filled in.
        """
        asked: StageResources = self._resources.of(task.kind)
        peaks = list(self._peaks.get(sort_of(task), {}).values()) if self._resources.pack else []
        if not peaks:
            return needs
        if asked.memory_gib is None:
            needs = replace(needs, memory_gib=max(peak.memory_gib for peak in peaks))
        shares = [peak.share for peak in peaks if peak.share is not None]
        is_open = asked.gpus is None and not self._resources.is_exclusive(task.kind)
        if is_open and needs.gpus == 1.0 and shares:
            needs = replace(needs, gpus=max(shares))
        return needs

    def _keep(self, sort: str, peak: Peak) -> bool:
        """Remember the larger of two peaks; whether more is to be reserved from now on."""
        known = self._peaks.setdefault(sort, {})
        before = known.get(peak.device)
        if before is not None:
            gpu_mib = max(before.gpu_mib or 0.0, peak.gpu_mib or 0.0)
            peak = replace(
                peak,
                host_mib=max(before.host_mib, peak.host_mib),
                gpu_mib=gpu_mib if peak.gpu_mib is not None else None,
            )
            if (peak.share, peak.memory_gib) == (before.share, before.memory_gib):
                return False
        known[peak.device] = peak
        return True
