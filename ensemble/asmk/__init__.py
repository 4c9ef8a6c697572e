"""Local descriptors of a picture and of its regions, aggregated by visual word, and what compares and searches them.

Teichmann, Araujo, Zhu, Sim: "Detect-to-Retrieve: Efficient Regional Aggregation for Image Search", CVPR 2019 (D2R);
Tolias, Avrithis, Jegou: "Image Search with Selective Match Kernels", IJCV 2016 (ASMK).
"""
