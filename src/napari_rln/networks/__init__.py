"""Richardson-Lucy Networks: models, inference, and import of published weights."""
