"""Tools with which adapters read original data sets: cases, annotations, images, tables, texts, archives."""
