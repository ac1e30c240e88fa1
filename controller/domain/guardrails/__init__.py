"""What counts as harm. One module per kind of rule."""
