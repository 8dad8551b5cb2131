"""An arm whose graph forks and joins: two backbones are trained, the better one is scored."""

from dataclasses import replace

from workers.arms import Step, named

PRETRAIN_SEEDS = {"one": 11, "other": 22}


class BestOfTwo:
    """Trains a backbone with two seeds; which of them is scored follows from their Dice."""

    name = "best_of_two"
    settings = None
    searches = has_cells = False

    def steps(self, job, known):
        """See `workers.arms.Arm`."""
        jobs = {role: with_pretrain_seed(job, seed) for role, seed in PRETRAIN_SEEDS.items()}
        steps = [Step(role="prepare", kind="prepare")]
        steps += [
            Step(role=role, kind="pretrain", parents=named("prepare"), job=jobs[role])
            for role in jobs
        ]
        if not all(role in known for role in jobs):
            left = {"waits_for": tuple(jobs), "genotype": None}
            return [
                *steps,
                Step(role="predict", kind="predict", **left),
                Step(role="evaluate", kind="evaluate", **left),
            ]
        better, worse = sorted(jobs, key=lambda role: -known[role]["best_validation_dice"])
        parents = {"prepare": "prepare", "pretrain": better, "rival": worse}
        left = {"parents": parents, "waits_for": tuple(jobs), "job": jobs[better]}
        return [
            *steps,
            Step(role="predict", kind="predict", **left),
            Step(role="evaluate", kind="evaluate", implied=named("predict"), **left),
        ]


def with_pretrain_seed(job, seed):
    pretrain = replace(job.settings.pretrain, seed=seed)
    return replace(job, settings=replace(job.settings, pretrain=pretrain))
