"""What a train step would do on devices that are not there: `python -m parallel.compile`."""
