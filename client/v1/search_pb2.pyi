from landseer.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExpansionMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPANSION_METHOD_UNSPECIFIED: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_NONE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_LATTQE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_AQE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_AQEWD: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_AQEWD_DIR: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_ALPHA_QE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_DQE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_RANK_CURVE: _ClassVar[ExpansionMethod]
    EXPANSION_METHOD_VERIFIED: _ClassVar[ExpansionMethod]

class FirstStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIRST_STAGE_UNSPECIFIED: _ClassVar[FirstStage]
    FIRST_STAGE_GLOBAL: _ClassVar[FirstStage]
    FIRST_STAGE_WORDS: _ClassVar[FirstStage]
    FIRST_STAGE_BOTH: _ClassVar[FirstStage]

class RerankingMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RERANKING_METHOD_UNSPECIFIED: _ClassVar[RerankingMethod]
    RERANKING_METHOD_NONE: _ClassVar[RerankingMethod]
    RERANKING_METHOD_COATTENTION: _ClassVar[RerankingMethod]
    RERANKING_METHOD_SPATIAL: _ClassVar[RerankingMethod]

class Grouping(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GROUPING_UNSPECIFIED: _ClassVar[Grouping]
    GROUPING_NONE: _ClassVar[Grouping]
    GROUPING_NEAR_IDENTICAL: _ClassVar[Grouping]
    GROUPING_FIELD: _ClassVar[Grouping]
EXPANSION_METHOD_UNSPECIFIED: ExpansionMethod
EXPANSION_METHOD_NONE: ExpansionMethod
EXPANSION_METHOD_LATTQE: ExpansionMethod
EXPANSION_METHOD_AQE: ExpansionMethod
EXPANSION_METHOD_AQEWD: ExpansionMethod
EXPANSION_METHOD_AQEWD_DIR: ExpansionMethod
EXPANSION_METHOD_ALPHA_QE: ExpansionMethod
EXPANSION_METHOD_DQE: ExpansionMethod
EXPANSION_METHOD_RANK_CURVE: ExpansionMethod
EXPANSION_METHOD_VERIFIED: ExpansionMethod
FIRST_STAGE_UNSPECIFIED: FirstStage
FIRST_STAGE_GLOBAL: FirstStage
FIRST_STAGE_WORDS: FirstStage
FIRST_STAGE_BOTH: FirstStage
RERANKING_METHOD_UNSPECIFIED: RerankingMethod
RERANKING_METHOD_NONE: RerankingMethod
RERANKING_METHOD_COATTENTION: RerankingMethod
RERANKING_METHOD_SPATIAL: RerankingMethod
GROUPING_UNSPECIFIED: Grouping
GROUPING_NONE: Grouping
GROUPING_NEAR_IDENTICAL: Grouping
GROUPING_FIELD: Grouping

class Descriptor(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Expansion(_message.Message):
    __slots__ = ("method", "neighbours", "allow_untrained", "alpha")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    method: ExpansionMethod
    neighbours: int
    allow_untrained: bool
    alpha: float
    def __init__(self, method: _Optional[_Union[ExpansionMethod, str]] = ..., neighbours: _Optional[int] = ..., allow_untrained: _Optional[bool] = ..., alpha: _Optional[float] = ...) -> None: ...

class Reranking(_message.Message):
    __slots__ = ("method", "candidates", "weight", "require_shared_words")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_SHARED_WORDS_FIELD_NUMBER: _ClassVar[int]
    method: RerankingMethod
    candidates: int
    weight: float
    require_shared_words: int
    def __init__(self, method: _Optional[_Union[RerankingMethod, str]] = ..., candidates: _Optional[int] = ..., weight: _Optional[float] = ..., require_shared_words: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("image", "id", "descriptor", "region", "top_k", "expansion", "reranking", "explain", "first_stage", "group_by", "filter", "group_field", "page_size", "page_token", "metadata_mask")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXPANSION_FIELD_NUMBER: _ClassVar[int]
    RERANKING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    FIRST_STAGE_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    METADATA_MASK_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    id: str
    descriptor: Descriptor
    region: _common_pb2.Box
    top_k: int
    expansion: Expansion
    reranking: Reranking
    explain: bool
    first_stage: FirstStage
    group_by: Grouping
    filter: str
    group_field: str
    page_size: int
    page_token: str
    metadata_mask: _common_pb2.MetadataMask
    def __init__(self, image: _Optional[bytes] = ..., id: _Optional[str] = ..., descriptor: _Optional[_Union[Descriptor, _Mapping]] = ..., region: _Optional[_Union[_common_pb2.Box, _Mapping]] = ..., top_k: _Optional[int] = ..., expansion: _Optional[_Union[Expansion, _Mapping]] = ..., reranking: _Optional[_Union[Reranking, _Mapping]] = ..., explain: _Optional[bool] = ..., first_stage: _Optional[_Union[FirstStage, str]] = ..., group_by: _Optional[_Union[Grouping, str]] = ..., filter: _Optional[str] = ..., group_field: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., metadata_mask: _Optional[_Union[_common_pb2.MetadataMask, _Mapping]] = ...) -> None: ...

class StageScores(_message.Message):
    __slots__ = ("expanded", "coattention", "inliers", "words")
    GLOBAL_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_FIELD_NUMBER: _ClassVar[int]
    COATTENTION_FIELD_NUMBER: _ClassVar[int]
    INLIERS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    expanded: float
    coattention: float
    inliers: int
    words: float
    def __init__(self, expanded: _Optional[float] = ..., coattention: _Optional[float] = ..., inliers: _Optional[int] = ..., words: _Optional[float] = ..., **kwargs) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Verification(_message.Message):
    __slots__ = ("inliers", "probability", "outline", "patches", "via")
    INLIERS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    inliers: int
    probability: float
    outline: _containers.RepeatedCompositeFieldContainer[Point]
    patches: int
    via: Via
    def __init__(self, inliers: _Optional[int] = ..., probability: _Optional[float] = ..., outline: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., patches: _Optional[int] = ..., via: _Optional[_Union[Via, _Mapping]] = ...) -> None: ...

class Via(_message.Message):
    __slots__ = ("id", "inliers", "outline")
    ID_FIELD_NUMBER: _ClassVar[int]
    INLIERS_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    id: str
    inliers: int
    outline: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, id: _Optional[str] = ..., inliers: _Optional[int] = ..., outline: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class PointMatch(_message.Message):
    __slots__ = ("query", "hit")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HIT_FIELD_NUMBER: _ClassVar[int]
    query: Point
    hit: Point
    def __init__(self, query: _Optional[_Union[Point, _Mapping]] = ..., hit: _Optional[_Union[Point, _Mapping]] = ...) -> None: ...

class HitExplanation(_message.Message):
    __slots__ = ("thumbnail", "coattention", "cluster_weights", "boxes", "matches", "relevance")
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    COATTENTION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    thumbnail: bytes
    coattention: _common_pb2.Heatmap
    cluster_weights: _containers.RepeatedScalarFieldContainer[float]
    boxes: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedBox]
    matches: _containers.RepeatedCompositeFieldContainer[PointMatch]
    relevance: float
    def __init__(self, thumbnail: _Optional[bytes] = ..., coattention: _Optional[_Union[_common_pb2.Heatmap, _Mapping]] = ..., cluster_weights: _Optional[_Iterable[float]] = ..., boxes: _Optional[_Iterable[_Union[_common_pb2.DetectedBox, _Mapping]]] = ..., matches: _Optional[_Iterable[_Union[PointMatch, _Mapping]]] = ..., relevance: _Optional[float] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "scores", "metadata", "width", "height", "explanation", "verification", "near_identical", "group", "grouped")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    NEAR_IDENTICAL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    GROUPED_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    scores: StageScores
    metadata: _containers.ScalarMap[str, str]
    width: int
    height: int
    explanation: HitExplanation
    verification: Verification
    near_identical: _containers.RepeatedScalarFieldContainer[str]
    group: str
    grouped: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Union[StageScores, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., explanation: _Optional[_Union[HitExplanation, _Mapping]] = ..., verification: _Optional[_Union[Verification, _Mapping]] = ..., near_identical: _Optional[_Iterable[str]] = ..., group: _Optional[str] = ..., grouped: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryExplanation(_message.Message):
    __slots__ = ("thumbnail", "width", "height", "region", "attention", "boxes")
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    thumbnail: bytes
    width: int
    height: int
    region: _common_pb2.Box
    attention: _common_pb2.Heatmap
    boxes: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedBox]
    def __init__(self, thumbnail: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., region: _Optional[_Union[_common_pb2.Box, _Mapping]] = ..., attention: _Optional[_Union[_common_pb2.Heatmap, _Mapping]] = ..., boxes: _Optional[_Iterable[_Union[_common_pb2.DetectedBox, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "timings", "model_versions", "degradations", "index_size", "query_explanation", "untrained", "matched", "next_page_token", "collection_changed")
    HITS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    DEGRADATIONS_FIELD_NUMBER: _ClassVar[int]
    INDEX_SIZE_FIELD_NUMBER: _ClassVar[int]
    QUERY_EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_CHANGED_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    model_versions: _containers.RepeatedCompositeFieldContainer[_common_pb2.ModelVersion]
    degradations: _containers.RepeatedCompositeFieldContainer[_common_pb2.Degradation]
    index_size: int
    query_explanation: QueryExplanation
    untrained: _containers.RepeatedScalarFieldContainer[str]
    matched: int
    next_page_token: str
    collection_changed: bool
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ..., model_versions: _Optional[_Iterable[_Union[_common_pb2.ModelVersion, _Mapping]]] = ..., degradations: _Optional[_Iterable[_Union[_common_pb2.Degradation, _Mapping]]] = ..., index_size: _Optional[int] = ..., query_explanation: _Optional[_Union[QueryExplanation, _Mapping]] = ..., untrained: _Optional[_Iterable[str]] = ..., matched: _Optional[int] = ..., next_page_token: _Optional[str] = ..., collection_changed: _Optional[bool] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("image", "region")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    region: _common_pb2.Box
    def __init__(self, image: _Optional[bytes] = ..., region: _Optional[_Union[_common_pb2.Box, _Mapping]] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("descriptor", "query_vector", "boxes", "attention", "clusters", "width", "height", "timings", "model_versions")
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTOR_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    descriptor: Descriptor
    query_vector: Descriptor
    boxes: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedBox]
    attention: _common_pb2.Heatmap
    clusters: _containers.RepeatedCompositeFieldContainer[Descriptor]
    width: int
    height: int
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    model_versions: _containers.RepeatedCompositeFieldContainer[_common_pb2.ModelVersion]
    def __init__(self, descriptor: _Optional[_Union[Descriptor, _Mapping]] = ..., query_vector: _Optional[_Union[Descriptor, _Mapping]] = ..., boxes: _Optional[_Iterable[_Union[_common_pb2.DetectedBox, _Mapping]]] = ..., attention: _Optional[_Union[_common_pb2.Heatmap, _Mapping]] = ..., clusters: _Optional[_Iterable[_Union[Descriptor, _Mapping]]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ..., model_versions: _Optional[_Iterable[_Union[_common_pb2.ModelVersion, _Mapping]]] = ...) -> None: ...
