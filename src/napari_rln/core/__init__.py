"""What all other rooms stand on: volumes, records, settings, devices."""
