import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from landseer.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Picture(_message.Message):
    __slots__ = ("id", "image", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: bytes
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., image: _Optional[bytes] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("picture",)
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    picture: Picture
    def __init__(self, picture: _Optional[_Union[Picture, _Mapping]] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("replaced", "sequence")
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    replaced: bool
    sequence: int
    def __init__(self, replaced: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class UpsertManyRequest(_message.Message):
    __slots__ = ("picture",)
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    picture: Picture
    def __init__(self, picture: _Optional[_Union[Picture, _Mapping]] = ...) -> None: ...

class UpsertFailure(_message.Message):
    __slots__ = ("id", "position", "code", "message")
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    position: int
    code: int
    message: str
    def __init__(self, id: _Optional[str] = ..., position: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class UpsertManyResponse(_message.Message):
    __slots__ = ("indexed", "replaced", "failures")
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    indexed: int
    replaced: int
    failures: _containers.RepeatedCompositeFieldContainer[UpsertFailure]
    def __init__(self, indexed: _Optional[int] = ..., replaced: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[UpsertFailure, _Mapping]]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id", "include_vectors", "metadata_mask")
    ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    METADATA_MASK_FIELD_NUMBER: _ClassVar[int]
    id: str
    include_vectors: bool
    metadata_mask: _common_pb2.MetadataMask
    def __init__(self, id: _Optional[str] = ..., include_vectors: _Optional[bool] = ..., metadata_mask: _Optional[_Union[_common_pb2.MetadataMask, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("id", "metadata", "width", "height", "boxes", "sequence", "indexed_at", "thumbnail", "descriptor", "cluster_count")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_AT_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    metadata: _containers.ScalarMap[str, str]
    width: int
    height: int
    boxes: _containers.RepeatedCompositeFieldContainer[_common_pb2.DetectedBox]
    sequence: int
    indexed_at: _timestamp_pb2.Timestamp
    thumbnail: bytes
    descriptor: _containers.RepeatedScalarFieldContainer[float]
    cluster_count: int
    def __init__(self, id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., boxes: _Optional[_Iterable[_Union[_common_pb2.DetectedBox, _Mapping]]] = ..., sequence: _Optional[int] = ..., indexed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., thumbnail: _Optional[bytes] = ..., descriptor: _Optional[_Iterable[float]] = ..., cluster_count: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token", "include_metadata", "filter", "metadata_mask")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    METADATA_MASK_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    include_metadata: bool
    filter: str
    metadata_mask: _common_pb2.MetadataMask
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_metadata: _Optional[bool] = ..., filter: _Optional[str] = ..., metadata_mask: _Optional[_Union[_common_pb2.MetadataMask, _Mapping]] = ...) -> None: ...

class ListedPicture(_message.Message):
    __slots__ = ("id", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("pictures", "next_page_token", "matched")
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    pictures: _containers.RepeatedCompositeFieldContainer[ListedPicture]
    next_page_token: str
    matched: int
    def __init__(self, pictures: _Optional[_Iterable[_Union[ListedPicture, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., matched: _Optional[int] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchedVectors(_message.Message):
    __slots__ = ("augmentation", "network", "sequence", "not_augmented", "removed")
    AUGMENTATION_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NOT_AUGMENTED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    augmentation: str
    network: str
    sequence: int
    not_augmented: int
    removed: int
    def __init__(self, augmentation: _Optional[str] = ..., network: _Optional[str] = ..., sequence: _Optional[int] = ..., not_augmented: _Optional[int] = ..., removed: _Optional[int] = ...) -> None: ...

class LocalFeaturesStats(_message.Message):
    __slots__ = ("kept", "pictures", "bytes", "regions")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    kept: bool
    pictures: int
    bytes: int
    regions: int
    def __init__(self, kept: _Optional[bool] = ..., pictures: _Optional[int] = ..., bytes: _Optional[int] = ..., regions: _Optional[int] = ...) -> None: ...

class KeypointsStats(_message.Message):
    __slots__ = ("kept", "pictures", "bytes")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    kept: bool
    pictures: int
    bytes: int
    def __init__(self, kept: _Optional[bool] = ..., pictures: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class VisualWordsStats(_message.Message):
    __slots__ = ("codebook", "words", "kernel", "pictures", "bytes")
    CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    codebook: str
    words: int
    kernel: str
    pictures: int
    bytes: int
    def __init__(self, codebook: _Optional[str] = ..., words: _Optional[int] = ..., kernel: _Optional[str] = ..., pictures: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class IndexedFieldStats(_message.Message):
    __slots__ = ("name", "kind", "pictures", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    pictures: int
    bytes: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., pictures: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("pictures", "sequence", "store_bytes", "store_limit_bytes", "index_engine", "descriptor_size", "long_side", "backbone", "model_versions", "untrained", "last_change", "max_top_k", "max_image_bytes", "max_image_pixels", "searched_vectors", "local_features", "visual_words", "keypoints", "indexed_fields")
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_ENGINE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_SIZE_FIELD_NUMBER: _ClassVar[int]
    LONG_SIDE_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_VECTORS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FEATURES_FIELD_NUMBER: _ClassVar[int]
    VISUAL_WORDS_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    pictures: int
    sequence: int
    store_bytes: int
    store_limit_bytes: int
    index_engine: str
    descriptor_size: int
    long_side: int
    backbone: str
    model_versions: _containers.RepeatedCompositeFieldContainer[_common_pb2.ModelVersion]
    untrained: _containers.RepeatedScalarFieldContainer[str]
    last_change: _timestamp_pb2.Timestamp
    max_top_k: int
    max_image_bytes: int
    max_image_pixels: int
    searched_vectors: SearchedVectors
    local_features: LocalFeaturesStats
    visual_words: VisualWordsStats
    keypoints: KeypointsStats
    indexed_fields: _containers.RepeatedCompositeFieldContainer[IndexedFieldStats]
    def __init__(self, pictures: _Optional[int] = ..., sequence: _Optional[int] = ..., store_bytes: _Optional[int] = ..., store_limit_bytes: _Optional[int] = ..., index_engine: _Optional[str] = ..., descriptor_size: _Optional[int] = ..., long_side: _Optional[int] = ..., backbone: _Optional[str] = ..., model_versions: _Optional[_Iterable[_Union[_common_pb2.ModelVersion, _Mapping]]] = ..., untrained: _Optional[_Iterable[str]] = ..., last_change: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., max_top_k: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., searched_vectors: _Optional[_Union[SearchedVectors, _Mapping]] = ..., local_features: _Optional[_Union[LocalFeaturesStats, _Mapping]] = ..., visual_words: _Optional[_Union[VisualWordsStats, _Mapping]] = ..., keypoints: _Optional[_Union[KeypointsStats, _Mapping]] = ..., indexed_fields: _Optional[_Iterable[_Union[IndexedFieldStats, _Mapping]]] = ...) -> None: ...
