"""Local descriptors aggregated by visual word, their similarity, and an inverted file to search them.

Teichmann, Araujo, Zhu, Sim: "Detect-to-Retrieve: Efficient Regional Aggregation for Image Search", CVPR 2019 (D2R);
Tolias, Avrithis, Jegou: "Image Search with Selective Match Kernels", IJCV 2016 (ASMK).
"""
