"""The science: data, backbones, cells, the search and its operation pruners, and evaluation."""
