"""The dashboard of retrieval quality."""

from __future__ import annotations

from landseer.ops.watch.panels import Board, I, Panel, PromQuery, R, one

BOARD = Board(
    uid="landseer-quality",
    title="Landseer: retrieval quality",
    description="Which hits are right is unknown, but a change here without a change in traffic is a warning.",
    rows=[
        (
            "Scores",
            [
                Panel(
                    title="Score of the best hit",
                    kind="heatmap",
                    width=16,
                    queries=one(
                        f'sum by (le) (increase(landseer_top_score_bucket{{ranking="global", {I}}}[{R}]))', "{{le}}"
                    ),
                    description="Cosine with the query. Low scores: queries for pictures that are not in the index.",
                ),
                Panel(
                    title="Median score of the best hit, by ranking",
                    queries=[
                        PromQuery(
                            expression="histogram_quantile(0.5, sum by (le, ranking) "
                            f"(rate(landseer_top_score_bucket{{{I}}}[{R}])))",
                            legend="{{ranking}}",
                        )
                    ],
                ),
            ],
        ),
        (
            "What expansion and re-ranking change",
            [
                Panel(
                    title="Hits kept",
                    unit="percentunit",
                    most=1.0,
                    queries=one(
                        f"sum by (stage) (rate(landseer_hits_kept_ratio_sum{{{I}}}[{R}]))"
                        f" / (sum by (stage) (rate(landseer_hits_kept_ratio_count{{{I}}}[{R}])) > 0)",
                        "{{stage}}",
                    ),
                    description="Share of the hits that were there before the stage. 100%: the stage changes nothing.",
                ),
                Panel(
                    title="Searches by options",
                    unit="reqps",
                    queries=one(
                        f"sum by (query, expansion, reranking) (rate(landseer_searches_total{{{I}}}[{R}]))",
                        "{{query}}, {{expansion}}, {{reranking}}",
                    ),
                ),
                Panel(
                    title="Degraded answers",
                    unit="percentunit",
                    queries=one("job:landseer_degraded:ratio_rate5m", "{{job}}"),
                    description="Answered without a stage that was requested or is the default.",
                ),
            ],
        ),
    ],
)
