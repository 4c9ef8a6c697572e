"""`make results`: the descriptors of the papers side by side, on products that none of them was trained on."""
