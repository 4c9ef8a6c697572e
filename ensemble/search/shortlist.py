"""The short list of a search: the first hits, which are re-ranked."""

from __future__ import annotations

import numpy as np

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.errors import CodebookMissing
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.search.plan import RerankingPlan
from landseer.ensemble.search.ranking import Ranking, moved_to_front
from landseer.ensemble.search.resolved_query import ResolvedQuery


async def shortlisted(
    collection: Collection, how: RerankingPlan, query: ResolvedQuery, before: Ranking
) -> tuple[int, Ranking]:
    """Return how many hits are re-ranked, and the ranking with these first. CodebookMissing, LocalFeaturesMissing."""
    count = min(how.candidates, len(before.keys))
    if not how.shared_words:
        return count, before
    words, query_words = await words_of(collection, query)
    shared = await words.sharing(query_words, before.keys[:count], least=how.shared_words)
    return int(np.count_nonzero(shared)), moved_to_front(before, shared)


async def words_of(collection: Collection, query: ResolvedQuery) -> tuple[WordIndex, Binary]:
    """Return the word index and the query's words. Parsing rejects such requests if there is no codebook.

    CodebookMissing, LocalFeaturesMissing.
    """
    words, deep = collection.words, collection.deep_words
    if words is None:
        raise CodebookMissing("this server has no visual words; start it with --local-features keypoints")
    if deep is not None:
        return words, await deep.of_query(query.needed_local_features())
    return words, query.needed_keypoints().aggregated()
