"""The shape of the tree, the pages and the command line."""
