"""The runs folder: what lies in it, read with bounds because its files may come from strangers."""
