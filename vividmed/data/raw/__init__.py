"""What an adapter reads original data sets with: cases, annotations, images, tables, archives."""
