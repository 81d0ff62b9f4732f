"""What any run needs and that knows nothing of membership."""
