"""Query expansion: the query and its nearest neighbours become a better query.

All methods are one form, q' = unit(sum of w_i d_i) with d_0 = q and the neighbours d_1 .. d_k, nearest first (Gordo,
Radenovic, Berg: "Attention-Based Query Expansion Learning", ECCV 2020, eq. 1); they differ in the weights.
"""
