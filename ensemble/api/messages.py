"""Conversion of answers to protobuf messages, without any logic of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from landseer.ensemble.api.metadata_mask import MetadataMask
from landseer.ensemble.api.page_tokens import PageToken, digest_of
from landseer.ensemble.api.verified import matches, verification
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Served
from landseer.ensemble.pictures.heatmap import FeatureMap, coattention_heatmap
from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.search.describe import DescribedPicture
from landseer.ensemble.search.plan import HitsPage
from landseer.ensemble.search.ranking import Ranking
from landseer.ensemble.search.search import SearchResult
from landseer.ensemble.search.stages import STAGES, Stages
from landseer.ensemble.store.listing import Page
from landseer.ensemble.store.record import Record, Stored
from landseer.v1 import common_pb2, index_pb2, search_pb2


def search_response(
    found: SearchResult, served: Served | None, profile: Profile, *, explain: bool, mask: MetadataMask
) -> search_pb2.SearchResponse:
    """Return the answer to a search, without timings and pages. With `explain` this computes heat maps."""
    shown = None if found.picture is None else found.picture.prepared.region
    hits = [_hit(found, place, profile, explain=explain, shown=shown, mask=mask) for place in range(len(found.records))]
    picture = found.picture if explain else None
    return search_pb2.SearchResponse(
        hits=hits,
        model_versions=model_versions(served, found.models),
        index_size=found.index_size,
        query_explanation=None if picture is None else _query_explanation(picture),
        untrained=found.untrained,
        matched=found.matched,
    )


def add_page(
    response: search_pb2.SearchResponse, request: search_pb2.SearchRequest, page: HitsPage, found: SearchResult
) -> None:
    """Add the token of the next page, and whether the collection has changed since the first one."""
    first = found.sequence if page.since is None else page.since
    response.collection_changed = first != found.sequence
    if found.more:
        digest = page.digest or digest_of(request)
        token = PageToken(offset=page.offset + page.size, sequence=first, digest=digest)
        response.next_page_token = str(token)


def describe_response(described: DescribedPicture, served: Served) -> search_pb2.DescribeResponse:
    """Return the answer to Describe, without timings."""
    return search_pb2.DescribeResponse(
        descriptor=_descriptor(described.descriptor),
        query_vector=_descriptor(described.query_vector),
        boxes=detected_boxes(described.boxes),
        attention=heatmap(described.tensors["attention"]),
        clusters=[_descriptor(cluster) for cluster in described.clusters],
        width=described.prepared.width,
        height=described.prepared.height,
        model_versions=model_versions(served, ("backbone", "detector", "cluster")),
    )


def get_response(stored: Stored, *, include_vectors: bool, mask: MetadataMask) -> index_pb2.GetResponse:
    """Return the stored record of a picture."""
    record = stored.record
    return index_pb2.GetResponse(
        id=record.id,
        metadata=mask.of(record.metadata),
        width=record.width,
        height=record.height,
        boxes=detected_boxes(record.boxes),
        sequence=stored.key,
        indexed_at=timestamp(record.indexed_at),
        thumbnail=record.thumbnail,
        descriptor=record.descriptor.astype(np.float32).tolist() if include_vectors else (),
        cluster_count=len(record.clusters),
    )


def list_response(page: Page, matched: int | None, *, mask: MetadataMask) -> index_pb2.ListResponse:
    """Return a page of pictures; the token of the next page is the last id that was looked at for this one."""
    return index_pb2.ListResponse(
        pictures=[index_pb2.ListedPicture(id=one.id, metadata=mask.of(one.metadata)) for one in page.pictures],
        next_page_token=page.next,
        matched=matched,
    )


def add_stages(response: Any, stages: Stages) -> None:
    """Add timings, and degradations if there are any."""
    for stage in STAGES:
        if stage in stages.timings:
            response.timings.add(stage=stage, seconds=stages.timings[stage])
    for skipped, reason in stages.degradations.items():
        response.degradations.add(stage=skipped, reason=reason)


def model_versions(served: Served | None, names: Iterable[str]) -> list[common_pb2.ModelVersion]:
    """Return the versions of these models; empty while Triton is unavailable."""
    wanted = set(names)
    pairs = served.versions if served else ()
    return [common_pb2.ModelVersion(name=name, version=version) for name, version in pairs if name in wanted]


def detected_boxes(boxes: NDArray[np.float32]) -> list[common_pb2.DetectedBox]:
    """Return boxes [m, 5] (x, y, width, height, score) as messages."""
    return [
        common_pb2.DetectedBox(box=common_pb2.Box(x=x, y=y, width=width, height=height), score=score)
        for x, y, width, height, score in boxes.tolist()
    ]


def heatmap(values: NDArray[np.float32]) -> common_pb2.Heatmap:
    """Return a map [h, w] as a message, clipped to [0, 1]."""
    clipped = np.clip(values, 0.0, 1.0)
    return common_pb2.Heatmap(height=values.shape[0], width=values.shape[1], values=clipped.ravel().tolist())


def timestamp(moment: float | None) -> Timestamp | None:
    """Return a time in Unix seconds as a message."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromMicroseconds(round(moment * 1e6))
    return message


def _descriptor(vector: NDArray[Any]) -> search_pb2.Descriptor:
    return search_pb2.Descriptor(values=vector.astype(np.float32).tolist())


def _hit(
    found: SearchResult, place: int, profile: Profile, *, explain: bool, shown: Region | None, mask: MetadataMask
) -> search_pb2.Hit:
    ranking, record = found.ranking, found.records[place]
    others = "near_identical" if found.group_field is None else "grouped"
    return search_pb2.Hit(
        id=record.id,
        score=float(ranking.scores[place]),
        scores=_scores(ranking, place),
        metadata=mask.of(record.metadata),
        width=record.width,
        height=record.height,
        explanation=_explanation(ranking, place, record, profile, shown) if explain else None,
        verification=verification(ranking.evidence[place], record.width, record.height, via=found.vias[place]),
        group=found.values[place],
        **{others: found.others[place]},
    )


def _scores(ranking: Ranking, place: int) -> search_pb2.StageScores:
    """Return the scores by stage, without NaNs: those stages did not score this hit."""
    arrays = {"global": ranking.global_, "words": ranking.words}
    arrays |= {"expanded": ranking.expanded, "coattention": ranking.coattention}
    scores = {name: float(array[place]) for name, array in arrays.items()}
    message = search_pb2.StageScores()
    for name, score in scores.items():
        if not np.isnan(score):
            setattr(message, name, score)
    if not np.isnan(ranking.inliers[place]):
        message.inliers = int(ranking.inliers[place])
    return message


def _explanation(
    ranking: Ranking, place: int, record: Record, profile: Profile, shown: Region | None
) -> search_pb2.HitExplanation:
    explanation = search_pb2.HitExplanation(thumbnail=record.thumbnail, boxes=detected_boxes(record.boxes))
    if not np.isnan(ranking.relevance[place]):
        explanation.relevance = float(ranking.relevance[place])
    if not np.isnan(ranking.coattention[place]):
        weights, features = ranking.weights[place], FeatureMap(packed=record.feature_map)
        where = coattention_heatmap(
            features, weights, width=record.width, height=record.height, long_side=profile.long_side
        )
        explanation.coattention.CopyFrom(heatmap(where))
        explanation.cluster_weights.extend(weights[: len(record.clusters)].tolist())
    if shown is not None and ranking.evidence[place] is not None:
        explanation.matches.extend(matches(ranking.evidence[place], shown, record.width, record.height))
    return explanation


def _query_explanation(picture: DescribedPicture) -> search_pb2.QueryExplanation:
    prepared, region = picture.prepared, picture.prepared.region
    return search_pb2.QueryExplanation(
        thumbnail=prepared.thumbnail,
        width=prepared.width,
        height=prepared.height,
        region=common_pb2.Box(x=region.x, y=region.y, width=region.width, height=region.height),
        attention=heatmap(picture.tensors["attention"]),
        boxes=detected_boxes(picture.boxes),
    )
