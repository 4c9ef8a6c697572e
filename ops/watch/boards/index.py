"""The dashboard of the index and of ingestion."""

from __future__ import annotations

from landseer.ops.watch.panels import Board, I, Panel, R, one, quantiles

BOARD = Board(
    uid="landseer-index",
    title="Landseer: index and ingest",
    description="Size and changes of the index, and how full the store is.",
    rows=[
        (
            "Index",
            [
                Panel(
                    title="Pictures",
                    queries=one(f"sum by (instance) (landseer_index_pictures{{{I}}})", "{{instance}}"),
                ),
                Panel(
                    title="Added and removed",
                    unit="ops",
                    queries=one(
                        f"sum by (outcome) (rate(landseer_ingested_pictures_total{{{I}}}[{R}]))", "{{outcome}}"
                    ),
                ),
                Panel(
                    title="Time since the last change",
                    unit="s",
                    queries=one(f"time() - (landseer_index_change_timestamp_seconds{{{I}}} > 0)", "{{instance}}"),
                ),
                Panel(title="Changes per transaction", queries=quantiles("landseer_write_batch_size", I)),
                Panel(
                    title="Latency of Upsert",
                    unit="s",
                    queries=quantiles("grpc_server_handling_seconds", f'grpc_method="Upsert", {I}'),
                ),
                Panel(
                    title="Time since the index was built",
                    unit="s",
                    queries=one(f"time() - landseer_index_built_timestamp_seconds{{{I}}}", "{{instance}}"),
                ),
            ],
        ),
        (
            "Index versions",
            [
                Panel(
                    title="Versions built, and failed, in an hour",
                    queries=one(
                        f"sum by (instance, outcome) (increase(landseer_index_merges_total{{{I}}}[1h]))",
                        "{{instance}} {{outcome}}",
                    ),
                ),
                Panel(
                    title="Pictures beside the version",
                    queries=[
                        *one(f"landseer_index_added{{{I}}}", "{{instance}} added"),
                        *one(f"landseer_index_tombstones{{{I}}}", "{{instance}} removed"),
                    ],
                ),
                Panel(
                    title="Versions found damaged",
                    queries=one(f"landseer_index_damaged_versions_total{{{I}}}", "{{instance}}"),
                ),
            ],
        ),
        (
            "Store and process",
            [
                Panel(
                    title="Store",
                    unit="bytes",
                    queries=one(f"sum by (instance) (landseer_store_bytes{{{I}}})", "{{instance}}"),
                ),
                Panel(
                    title="Store, share of its limit",
                    unit="percentunit",
                    most=1.0,
                    queries=one(f"landseer_store_bytes{{{I}}} / landseer_store_limit_bytes{{{I}}}", "{{instance}}"),
                ),
                Panel(
                    title="Memory of the orchestrator",
                    unit="bytes",
                    queries=one(f'process_resident_memory_bytes{{job="landseer", {I}}}', "{{instance}}"),
                ),
            ],
        ),
    ],
)
