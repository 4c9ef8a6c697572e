"""Research: heads, boxes, expansions and local features compared, in the reports of `make results*`."""
