"""The networks, and their weights from elsewhere."""
