"""Keypoints: corners and blobs described by RootSIFT, their visual words, and what the store keeps of them."""
