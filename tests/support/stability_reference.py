"""The stability test and the choice of edges once more, in plain Python: oracles of the loops."""

import numpy as np

from iac_core.cells.genotype import EDGES_PER_NODE, cell_edges, live_edges, masked_softmax
from iac_core.pruners.js_absolute import JsAbsolute
from iac_core.pruners.ranking import jensen_shannon, removable, weakest
from iac_core.types import Reason


class PlainJsAbsolute(JsAbsolute):
    """Edge by edge, with lists."""

    def __init__(self, settings):
        super().__init__(settings)
        self.settled, self.last_kept = {}, {}

    def _prune_operations(self, jsd, mean, targets, keep, state):
        reasons = []
        for level, edge in np.ndindex(jsd.shape):
            active = state.active[level, edge]
            candidates = weakest(
                mean[level, edge], active, self.n_wanted(mean[level, edge], active)
            )
            into = np.flatnonzero(targets == targets[edge])
            if self.settings.prune_edges:
                n_live = int(live_edges(keep[level, into], state.operations).sum())
                if n_live > EDGES_PER_NODE:
                    candidates = [k for k in candidates if state.operations[k] != "none"]
            gone = removable(candidates, keep[level], edge, state.edges, state.operations)
            if self.settles((level, edge), jsd[level, edge], gone, active, state):
                keep[level, edge, gone] = False
                names = tuple(state.operations[k] for k in gone)
                reasons.append(
                    Reason(
                        rule="js_absolute", value=float(jsd[level, edge]),
                        threshold=self._threshold(state), level=level, edge=edge, operations=names,
                    )
                )  # fmt: skip
        return reasons

    def n_wanted(self, mean, active):
        settings, n = self.settings, int(active.sum())
        n_weak = int((mean[active] < settings.weak_share / n).sum())
        n_most = min(int(n * settings.max_share), n - settings.min_operations)
        return max(0, min(max(1, n_weak), n_most))

    def settles(self, key, divergence, gone, active, state):
        kept = [k for k in np.flatnonzero(active) if k not in gone]
        same = self.last_kept.get(key) == kept or not self.settings.rank_guard
        self.last_kept[key] = kept
        if not gone or divergence > self._threshold(state) or not same:
            self.settled[key] = 0
            return False
        self.settled[key] = self.settled.get(key, 0) + 1
        if self.settled[key] < self.settings.patience_epochs:
            return False
        self.settled[key] = 0
        del self.last_kept[key]
        return True


def plain_divergence(history, active, window):
    """Divergence of each edge, and the importances of the last window."""
    recent = np.nan_to_num(history[-2 * window :])
    shares = masked_softmax(recent, np.broadcast_to(active, recent.shape))
    before, after = shares[:window].mean(axis=0), shares[window:].mean(axis=0)
    return jensen_shannon(before, after), after


def plain_choice(alpha, beta, active, operations, n_nodes):
    """``{(level, target): [(source, operation), …]}`` of the kept edges."""
    edges, real = cell_edges(n_nodes), np.array([name != "none" for name in operations])
    found = {}
    for level in range(len(alpha)):
        best = np.where(real & active[level], masked_softmax(alpha[level], active[level]), -1.0)
        for target in range(2, 2 + n_nodes):
            into = [i for i, (_, end) in enumerate(edges) if end == target and best[i].max() >= 0]
            weights = masked_softmax(beta[level][into], np.ones(len(into), dtype=bool))
            score = dict(zip(into, weights * best[into].max(axis=-1), strict=True))
            into.sort(key=lambda index: (-score[index], index))
            found[level, target] = sorted(
                (edges[i][0], operations[int(best[i].argmax())]) for i in into[:EDGES_PER_NODE]
            )
    return found
