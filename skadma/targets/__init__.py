"""Labels of images: checks, several labels per image, weights and groups."""
