"""The page that compares results with their image and with each other."""
