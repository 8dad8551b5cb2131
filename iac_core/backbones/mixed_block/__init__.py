"""Networks of mixed blocks, whose settings are a genotype (Bosma et al., SPIE 2022, MB-NAS).

A network is a chain of nodes. Each has a level (its resolution and width), a block and a kernel
(of the edge that leaves it) and a skip (an earlier node of its level that is concatenated to it).
"""
