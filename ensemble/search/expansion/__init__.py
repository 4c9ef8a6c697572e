"""Query expansion: combine the query with its nearest neighbours.

All methods have one form, q' = unit(sum of w_i d_i) with d_0 = q and the neighbours d_1 .. d_k, nearest first (Gordo,
Radenovic, Berg: "Attention-Based Query Expansion Learning", ECCV 2020, eq. 1). They differ in the weights.
"""
