"""Metrics of answer quality. Without ground truth they only show changes, such as falling scores."""

from __future__ import annotations

import numpy as np

from landseer.ensemble.search.plan import IdQuery, PictureQuery, SearchPlan, VectorQuery
from landseer.ensemble.search.ranking import Ranking
from landseer.ensemble.telemetry.metrics import Metrics, only_metrics

QUERIES = {PictureQuery: "image", IdQuery: "id", VectorQuery: "descriptor"}
"""Label of each kind of query."""


@only_metrics()
def observe_search(metrics: Metrics, plan: SearchPlan, ranking: Ranking) -> None:
    """Count a search, and observe the score of its best hit in each ranking."""
    expansion, reranking = plan.expand.method if plan.expand else "none", plan.rerank.method if plan.rerank else "none"
    metrics.searches.labels(QUERIES[type(plan.query)], expansion, reranking).inc()
    scores = {"global": ranking.global_, "words": ranking.words}
    scores |= {"expanded": ranking.expanded, "coattention": ranking.coattention}
    for name, some in scores.items():
        if len(some) and np.isfinite(some[0]):
            metrics.top_score.labels(name).observe(float(some[0]))


@only_metrics()
def observe_kept(metrics: Metrics, stage: str, before: Ranking, after: Ranking, *, wanted: int) -> None:
    """Observe the share of the first `wanted` hits after a stage that were also among the first before it."""
    wanted = min(wanted, len(before.keys), len(after.keys))
    if wanted:
        kept = len(np.intersect1d(before.keys[:wanted], after.keys[:wanted]))
        metrics.kept.labels(stage).observe(kept / wanted)
